"""Builds the native tests with custom_ops/build.py and runs them: python tests/native/run.py [TEST]

fuzz [SECONDS [SEED [FIRST]]]    under AddressSanitizer and UndefinedBehaviorSanitizer
handlers [SECONDS [SEED [FIRST]]]  the same, of XLA's handlers
threads [REPEATS]                under ThreadSanitizer
fork
cuda [ROUNDS [SEED]]             CUDA's code, emulated on the CPU, likewise; half an hour
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

spec = importlib.util.spec_from_file_location("builder", ROOT / "custom_ops" / "build.py")
builder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(builder)

# Of UndefinedBehaviorSanitizer what neither AddressSanitizer nor the processor sees: all of it
# takes minutes to compile, and so does more optimisation. Uses of a variable after its scope are
# not looked for: with the hundreds of vectors of a kernel that compiles for seven times as long.
UNDEFINED = "bounds,shift,signed-integer-overflow,integer-divide-by-zero,float-cast-overflow,return"
SANITIZERS = {
    "fuzz": [
        f"-fsanitize=address,{UNDEFINED}",
        "-fno-sanitize-address-use-after-scope",
        "-fno-sanitize-recover=all",
    ],
    "threads": ["-fsanitize=thread"],
    "fork": [],
}
SANITIZERS["handlers"] = SANITIZERS["cuda"] = SANITIZERS["fuzz"]
ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "abort_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def build(test):
    """Builds a test and returns the program."""
    cxx = builder.compiler()
    flags = SANITIZERS[test]
    extra = [*flags, "-O1", "-g1", "-fno-omit-frame-pointer"] if flags else []
    compile_flags = [*builder.FLAGS, *extra, f"-I{HERE}"]
    sanitized = "fuzz" if flags is SANITIZERS["fuzz"] else test
    folder = f"native/core-{sanitized}" if flags else "core"
    with builder.alone(), builder.Builder() as b:
        if test == "cuda":
            emulated = [*compile_flags, "-include", HERE / "cuda_emulation.h"]
            objects = [b.object("native/cuda", cxx, HERE / "cuda_emulation_test.cc", emulated)]
            for name, header in builder.kernels().items():
                language = [*builder.kernel_flags(name, header, "cuda"), "-x", "c++"]
                source = builder.SOURCES / "cuda.cu"
                objects.append(
                    b.object(f"native/cuda-{header.stem}", cxx, source, emulated + language)
                )
            targets = ["baseline"]
        else:
            sources, targets = [HERE / f"{test}.cc"], builder.TARGETS
            if test == "handlers":
                sources.append(builder.SOURCES / "xla_ffi.cc")
                compile_flags += ["-isystem", builder.ffi_headers()]
            objects = [b.object(f"native/{s.stem}", cxx, s, compile_flags) for s in sources]
        objects += builder.core(b, cxx, extra, folder, targets)
        objects = [o.result() for o in objects]
        program = b.folder / "native" / test
        return b.run([*cxx, *objects, *flags, "-pthread", "-o", program], program, objects)


def main(arguments):
    tests = [arguments] if arguments else [[name] for name in SANITIZERS]
    for name, *rest in tests:
        if name not in SANITIZERS:
            sys.exit(__doc__)
        program = build(name)
        print(f"--- {name}", flush=True)
        done = subprocess.run([program, *rest], env={**os.environ, **ENVIRONMENT})
        if done.returncode != 0:
            sys.exit(f"{name} failed: {done.returncode}")


if __name__ == "__main__":
    main(sys.argv[1:])
