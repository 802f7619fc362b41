"""Builds the native tests with custom_ops/build.py and runs them: python tests/native/run.py [TEST]

fuzz [SECONDS [SEED [FIRST]]]    under AddressSanitizer and UndefinedBehaviorSanitizer
threads [REPEATS]                under ThreadSanitizer
fork
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
# takes minutes to compile, and so does more optimisation.
UNDEFINED = "bounds,shift,signed-integer-overflow,integer-divide-by-zero,float-cast-overflow,return"
SANITIZERS = {
    "fuzz": [f"-fsanitize=address,{UNDEFINED}", "-fno-sanitize-recover=all"],
    "threads": ["-fsanitize=thread"],
    "fork": [],
}
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
    with builder.alone(), builder.Builder() as b:
        main = b.object(
            f"native/{test}", cxx, HERE / f"{test}.cc", [*builder.FLAGS, *extra, f"-I{HERE}"]
        )
        folder = f"native/core-{test}" if flags else "core"
        objects = [o.result() for o in [main, *builder.core(b, cxx, extra, folder)]]
        program = b.folder / "native" / test
        return b.run([*cxx, *objects, *flags, "-pthread", "-o", program], program, objects)


def main(arguments):
    tests = [arguments] if arguments else [["fuzz"], ["threads"], ["fork"]]
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
