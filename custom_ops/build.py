"""Builds the compiled kernels: python custom_ops/build.py [--out FOLDER] [LIBRARY ...]

    tf       CPU kernels for TensorFlow, one binary for many of its versions
    xla      CPU kernels for XLA, in JAX and in TensorFlow
    native   kernels for the installed TensorFlow alone: inside XLA, and on CUDA
    cuda     CUDA kernels for XLA

Without names all that this machine can build: where native or cuda fails, it says so and goes on. A
library that is named must be built. Only what has changed is built anew. It needs Linux and a C++17
compiler (CXX, c++, g++ or clang++), for CUDA also nvcc (CUDA_HOME or on the PATH).
"""

import argparse
import contextlib
import filecmp
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "custom_ops"
BUILD = ROOT / "build" / "kernels"
OUT = ROOT / "keras_learnact" / "kernels" / "lib"

FILES = {
    "tf": "libkeras_learnact_tf.so",
    "xla": "libkeras_learnact_xla.so",
    "native": "libkeras_learnact_tf_native.so",
    "cuda": "libkeras_learnact_cuda.so",
}
# {file of a library: its SHA-256}: whether it is whole, to be read before it is loaded.
CHECKSUMS = "checksums.json"
# {file of a library: why it is not there}
NOT_BUILT = "not_built.json"

# Each target is a namespace in the C++ code; runtime/dispatch.cc chooses among them.
X86_TARGETS = {
    "baseline": [],
    "avx2": ["-march=x86-64-v3"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}
TARGETS = X86_TARGETS if platform.machine() == "x86_64" else {"baseline": []}

# Never -ffast-math: a library linked with it flushes denormal numbers in the whole process.
FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno"),
    *("-fno-trapping-math", "-Wall", "-Wextra", f"-I{SOURCES}"),
]
LINK = ["-shared", "-pthread", "-Wl,--as-needed", "-Wl,-O1", "-Wl,--gc-sections", "-s"]

# The code of each runs on all devices of its generation: that of 80 on 86 and 89.
CUDA_ARCHITECTURES = ("80", "90", "100")


class BuildError(Exception):
    """Something cannot be built; the text says what and why, its first line in short."""


class Skip(Exception):
    """A library cannot be built here; the text says why."""


class Builder:
    """Runs commands whose output is older than what it was made of, several at once."""

    def __init__(self, folder=BUILD, jobs=None):
        self.folder = Path(folder)
        self.jobs = ThreadPoolExecutor(jobs or len(os.sched_getaffinity(0)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.jobs.shutdown(cancel_futures=True)

    def object(self, name, compiler, source, flags, depfile_flags=("-MMD",)):
        """Compiles one file, in the background; `.result()` is the object."""
        output = self.folder / f"{name}.o"
        depfile = output.with_suffix(".d")
        command = [*compiler, *flags, *depfile_flags, "-MF", depfile, "-c", source, "-o", output]
        return self.jobs.submit(self._run, command, output, [source], depfile)

    def run(self, command, output, inputs):
        """Runs a command that makes `output` from `inputs`."""
        return self._run(command, Path(output), inputs)

    def _run(self, command, output, inputs, depfile=None):
        command = [str(part) for part in command]
        record = Path(f"{output}.command")
        if not _is_current(output, record, command, inputs, depfile):
            output.parent.mkdir(parents=True, exist_ok=True)
            record.unlink(missing_ok=True)
            start = time.time()
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                seconds = time.time() - start
                print(f"  {output.relative_to(self.folder)} ({seconds:.1f} s)", flush=True)
            messages = (done.stdout + done.stderr).strip()
            if done.returncode != 0:
                made = output.relative_to(self.folder)
                raise BuildError(f"{made} cannot be made:\n{shlex.join(command)}\n{messages}")
            os.utime(output, (start, start))  # an input that changed meanwhile is newer
            record.write_text(shlex.join(command))
            if messages:
                print(messages, flush=True)
        return output


def _is_current(output, record, command, inputs, depfile):
    try:
        made = output.stat().st_mtime
        if record.read_text() != shlex.join(command):
            return False
        if depfile:
            text = depfile.read_text().replace("\\\n", " ").split(":", 1)[1]
            inputs = [*inputs, *re.findall(r"(?:\\ |\S)+", text)]
        return all(os.stat(str(i).replace("\\ ", " ")).st_mtime < made for i in inputs)
    except OSError:  # something is missing, say a header that was renamed
        return False


def kernels():
    """{name in kernels/all.h: its header}."""
    text = (SOURCES / "kernels" / "all.h").read_text()
    names = re.findall(r"^\s*KERNEL\((\w+)\)", text, re.MULTILINE)
    headers = {p.stem.replace("_", ""): p for p in (SOURCES / "kernels").glob("*.h")}
    for name in names:
        if name.lower() not in headers:
            raise BuildError(
                f"kernels/all.h has KERNEL({name}) and there is no header of that name in "
                f"custom_ops/kernels: {sorted(p.name for p in headers.values())}"
            )
    return {name: headers[name.lower()] for name in names}


def compiler():
    """The C++ compiler as a list of words."""
    if platform.system() != "Linux":
        raise Skip(f"kernels are built on Linux, not on {platform.system()}")
    if os.environ.get("CXX"):
        words = shlex.split(os.environ["CXX"])
        if shutil.which(words[0]):
            return words
        raise Skip(f"there is no C++ compiler: CXX={os.environ['CXX']} is not there")
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise Skip("there is no C++ compiler: none of c++, g++, clang++ is on the PATH, CXX is not set")


def core(builder, cxx, extra=(), folder="core", targets=TARGETS):
    """The loops of every kernel for every target, and what they need: a list of futures."""
    flags = [*FLAGS, *extra]
    objects = []
    for name, header in kernels().items():
        for target in targets:
            machine = TARGETS[target]
            objects.append(
                builder.object(
                    f"{folder}/{header.stem}.{target}",
                    cxx,
                    SOURCES / "cpu.cc",
                    [*flags, *machine, *kernel_flags(name, header, target)],
                )
            )
    # Dispatch knows all targets.
    for name in ("pool", "dispatch") if list(targets) == list(TARGETS) else ("pool",):
        source = SOURCES / "runtime" / f"{name}.cc"
        objects.append(builder.object(f"{folder}/{name}", cxx, source, flags))
    return objects


def kernel_flags(name, header, target):
    return [
        f"-DKLA_KERNEL={name}",
        f'-DKLA_HEADER="kernels/{header.name}"',
        f"-DKLA_TARGET={target}",
    ]


def ffi_headers():
    """The folder of XLA's FFI headers of the oldest jaxlib that is supported.

    A framework refuses handlers that were compiled with headers newer than its own, so these come
    from the jaxlib that pyproject.toml names as a build requirement, and from no other.
    """
    text = (ROOT / "pyproject.toml").read_text()
    versions = re.findall(r'"jaxlib==([\d.]+)', text)
    for version in versions:
        folder = BUILD / f"xla-ffi-{version}"
        if folder.exists():
            return folder
    found = _find_package("jaxlib", environment=os.environ)
    if found and found["version"] in versions:
        folder = BUILD / f"xla-ffi-{found['version']}"
        _replace_folder(folder, lambda new: shutil.copytree(Path(found["path"]) / "include", new))
        return folder
    version = versions[0]
    folder = BUILD / f"xla-ffi-{version}"
    print(f"  downloading jaxlib {version} for XLA's FFI headers", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        # Any wheel will do: the headers are the same in all of them.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        command += [scratch, "--only-binary=:all:", "--python-version=3.12"]
        command += ["--platform=manylinux2014_x86_64", f"jaxlib=={version}"]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise BuildError(
                f"XLA's FFI headers come from jaxlib {version}, which is not installed and could "
                f"not be downloaded. Install it: pip install jaxlib=={version}\n{done.stderr}"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            prefix = "jaxlib/include/"
            names = [n for n in wheel.namelist() if n.startswith(prefix + "xla/ffi/")]
            wheel.extractall(scratch, names)
        _replace_folder(folder, lambda new: shutil.copytree(Path(scratch) / prefix, new))
    return folder


def _replace_folder(folder, make):
    new = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    make(new)
    new.rename(folder)


def _find_package(name, environment):
    """{"path": folder, "version": ...} of an installed package, or None. Imports nothing."""
    program = (
        "import importlib.metadata as m, importlib.util as u, json, sys\n"
        "name = sys.argv[1]\n"
        "spec = u.find_spec(name)\n"
        "if spec and spec.submodule_search_locations:\n"
        "    path = list(spec.submodule_search_locations)[0]\n"
        "    versions = [d.version for d in m.distributions() if d.metadata['Name'] and\n"
        "                d.metadata['Name'].lower().replace('_', '-') in (name, name + '-cpu')]\n"
        "    if versions:\n"
        "        print(json.dumps({'path': path, 'version': versions[0]}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name],
        capture_output=True,
        text=True,
        env=dict(environment),
        cwd="/",
    )
    return json.loads(done.stdout) if done.stdout.strip() else None


def tensorflow():
    """{"path", "version", "flags"} of the installed TensorFlow.

    pip builds a package in an environment of its own; the TensorFlow to build for is the one that
    the package will run with, where pip itself is installed.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONNOUSERSITE")
    }
    found = _find_package("tensorflow", environment)
    if found is None:
        raise Skip(f"TensorFlow is not installed in {sysconfig.get_paths()['platlib']}")
    cache = BUILD / "tensorflow.json"
    if cache.exists():
        cached = json.loads(cache.read_text())
        if all(cached[key] == found[key] for key in found):
            return cached
    program = "import json, tensorflow as tf; print(json.dumps(tf.sysconfig.get_compile_flags()))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd="/",
    )
    if done.returncode != 0:
        raise BuildError(f"the installed TensorFlow cannot be imported:\n{done.stderr}")
    found["flags"] = json.loads(done.stdout.splitlines()[-1])
    BUILD.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps(found))
    return found


def cuda_home():
    """The folder of the CUDA toolkit."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = Path(home) / "bin" / "nvcc" if home else shutil.which("nvcc")
    if not nvcc or not Path(nvcc).exists():
        where = f"in CUDA_HOME={home}" if home else "on the PATH, and CUDA_HOME is not set"
        raise Skip(f"there is no nvcc {where}")
    # It may be a script that calls the real one, so it is asked: `#$ TOP=/usr/local/cuda/bin/..`
    command = [nvcc, "--dryrun", "-c", "-x", "cu", os.devnull]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.*)$", said, re.MULTILINE)
    home = Path(top.group(1).strip() if top else Path(nvcc).resolve().parents[1]).resolve()
    if not (home / "include" / "cuda_runtime.h").exists():
        raise Skip(f"{nvcc} is there, and there is no {home}/include/cuda_runtime.h")
    return home


def _cuda_runtime(home):
    """CUDA's runtime as a static library."""
    # A toolkit for several processors has several.
    places = ("lib64", f"targets/{platform.machine()}-linux/lib", "targets/*/lib", "lib")
    for place in places:
        for file in sorted(home.glob(f"{place}/libcudart_static.a")):
            return file
    raise Skip(f"there is no libcudart_static.a in {home}, neither in {' nor in '.join(places)}")


def _cuda_architectures(nvcc):
    """Machine code for each, and PTX for those to come, all from one translation to PTX."""
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True).stdout.split()
    chosen = [f"sm_{a}" for a in CUDA_ARCHITECTURES if f"sm_{a}" in known]
    oldest = f"compute_{CUDA_ARCHITECTURES[0]}"
    flags = [f"-gencode=arch={oldest},code=[{','.join([oldest, *chosen])}]"]
    # A third of the size. As old as sm_100.
    return [*flags, "--compress-mode=size"] if "sm_100" in known else flags


def cuda_core(builder, cxx, home):
    """The device code of every kernel: a list of futures."""
    nvcc = home / "bin" / "nvcc"
    flags = ["-std=c++17", "-O3", "-prec-div=false", f"-I{SOURCES}", f"-ccbin={cxx[0]}"]
    flags += ["-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall,-Wextra"]
    flags += _cuda_architectures(nvcc)
    return [
        builder.object(
            f"cuda/{header.stem}",
            [nvcc],
            SOURCES / "cuda.cu",
            [*flags, *kernel_flags(name, header, "cuda")],
        )
        for name, header in kernels().items()
    ]


def _portable(builder, cxx):
    """Flags for a library that runs on systems older than this one, and beside any C++ library."""
    exports = SOURCES / "exports.lds"
    flags = ["-static-libstdc++", "-Xlinker", "--version-script", "-Xlinker", exports]
    if wrapped():
        source = SOURCES / "runtime" / "old_glibc.cc"
        flags.append(builder.object("old_glibc", cxx, source, FLAGS).result())
    return flags + wrapped()


def wrapped():
    """Flags that send calls to runtime/old_glibc.cc, where this is of use."""
    if platform.machine() not in ("x86_64", "aarch64") or platform.libc_ver()[0] != "glibc":
        return []
    text = (SOURCES / "runtime" / "old_glibc.cc").read_text()
    return [f"-Wl,--wrap={f}" for f in re.findall(r"^KLA_OLD\((\w+)\);", text, re.MULTILINE)]


def describe():
    """What the rules for Bazel (installed.bzl) take from here: a dict."""
    return {
        "FLAGS": [flag for flag in FLAGS if not flag.startswith(("-I", "-O"))],
        "TARGETS": TARGETS,
        "KERNELS": {name: header.name for name, header in kernels().items()},
        "LINK": [*LINK, "-static-libstdc++", *wrapped()],
        "FFI_HEADERS": str(ffi_headers()),
        "PYTHON": sys.executable,
    }


def _link(builder, cxx, library, objects, flags):
    """Links a library in the build folder: of objects, and of every `Path` among the flags."""
    objects = [o.result() for o in objects]
    output = builder.folder / FILES[library]
    inputs = objects + [flag for flag in flags if isinstance(flag, Path)]
    return builder.run([*cxx, *LINK, *objects, *flags, "-o", output], output, inputs)


def _source(name):
    path = SOURCES / name
    if not path.exists():
        raise Skip(f"custom_ops/{name} does not exist")
    return path


# Each of these starts to compile what its library alone needs, and returns the function that links
# it; the objects of `core` are there by then.


def _tf(builder, cxx, core_objects):
    binding = builder.object("tf_ops", cxx, _source("tf_ops.cc"), FLAGS)

    def link():
        # An empty library of the name that every TensorFlow 2 has: the real one is found by it.
        soname = "libtensorflow_framework.so.2"
        stub = builder.folder / "stub" / soname
        make_stub = [*cxx, "-shared", "-x", "c++", "/dev/null", f"-Wl,-soname,{soname}"]
        builder.run([*make_stub, "-o", stub], stub, [])
        flags = ["-Wl,--no-as-needed", stub, "-Wl,--as-needed", *_portable(builder, cxx)]
        return _link(builder, cxx, "tf", [binding, *core_objects], flags)

    return link


def _xla(builder, cxx, core_objects):
    source = _source("xla_ffi.cc")
    binding = builder.object("xla_ffi", cxx, source, [*FLAGS, "-isystem", ffi_headers()])
    return lambda: _link(
        builder, cxx, "xla", [binding, *core_objects], ["-Wl,-z,defs", *_portable(builder, cxx)]
    )


def _native(builder, cxx, core_objects):
    del core_objects  # the kernels are those of other libraries
    source = _source("tf_native.cc")
    found = tensorflow()
    include = Path(found["path"]) / "include"
    flags = [flag for flag in found["flags"] if not flag.startswith(("-I", "--std", "-std"))]
    for folder in ("", "external/highwayhash", "external/farmhash_archive/src"):
        flags += ["-isystem", include / folder]
    # Makes it compile anew for another version in the same folder.
    flags.append(f'-DKLA_TENSORFLOW_VERSION="{found["version"]}"')
    objects = [builder.object("tf_native", cxx, source, [*FLAGS, *flags])]
    with contextlib.suppress(Skip):  # without CUDA's headers it has nothing for GPUs
        flags += ["-DEIGEN_USE_GPU", "-DGOOGLE_CUDA=1", "-isystem", cuda_home() / "include"]
        source = _source("tf_native_cuda.cc")
        objects.append(builder.object("tf_native_cuda", cxx, source, [*FLAGS, *flags]))
    libraries = ["-l:libtensorflow_framework.so.2", "-l:libtensorflow_cc.so.2"]
    return lambda: _link(
        builder,
        cxx,
        "native",
        objects,
        ["-Wl,-z,defs", f"-L{found['path']}", *libraries],
    )


def _cuda(builder, cxx, core_objects):
    del core_objects  # those for the CPU
    source = _source("xla_ffi_cuda.cc")
    _source("cuda.cu")
    home = cuda_home()
    runtime = [_cuda_runtime(home), "-ldl", "-lrt"]
    flags = [*FLAGS, "-isystem", ffi_headers(), "-isystem", home / "include"]
    binding = builder.object("xla_ffi_cuda", cxx, source, flags)
    device = cuda_core(builder, cxx, home)
    return lambda: _link(
        builder,
        cxx,
        "cuda",
        [binding, *device],
        [*runtime, "-Wl,-z,defs", *_portable(builder, cxx)],
    )


LIBRARIES = {"tf": _tf, "xla": _xla, "native": _native, "cuda": _cuda}
# Without these there is a longer way, or the formula, and they depend on more than a C++ compiler:
# `native` is written for some versions of TensorFlow and fits no other.
OPTIONAL = ("native", "cuda")


def why_not():
    """Why nothing can be built here, or ""."""
    try:
        compiler()
        return ""
    except Skip as skip:
        return str(skip)


def platform_tag(files):
    """The wheel's tag of the systems that have what these libraries ask of glibc."""
    versions = {
        tuple(map(int, version.split(b".")))
        for file in files
        for version in re.findall(rb"\0GLIBC_([\d.]+)(?=\0)", Path(file).read_bytes())
    }
    if not versions:  # another C library
        return sysconfig.get_platform().replace("-", "_").replace(".", "_")
    # manylinux starts at 2.17.
    major, minor = max(*versions, (2, 17))[:2]
    return f"manylinux_{major}_{minor}_{platform.machine()}"


@contextlib.contextmanager
def alone():
    """One build at a time."""
    import fcntl  # not everywhere

    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(out=OUT, libraries=None):
    """Builds libraries into the folder `out`. One that fails does not keep the others from it.

    Args:
        out: the folder.
        libraries: names in `LIBRARIES`, each of which must be built. Default: those that this
            machine can build, and of them those in `OPTIONAL` may fail.

    Raises:
        BuildError: a library that must be built is not; the others are.
    """
    out, built, skipped, failed = Path(out), {}, {}, {}
    must = libraries or [name for name in LIBRARIES if name not in OPTIONAL]
    try:
        cxx = compiler()
    except Skip as skip:
        skipped = dict.fromkeys(libraries or LIBRARIES, str(skip))
    else:
        with alone(), Builder() as builder:
            core_objects, links = [], {}
            for name in libraries or LIBRARIES:
                with _noting(name, skipped, failed):
                    links[name] = LIBRARIES[name](builder, cxx, core_objects)
            core_objects += core(builder, cxx) if links else []
            for name, link in links.items():
                with _noting(name, skipped, failed):
                    built[name] = link()
            for name, file in built.items():
                _install(file, out / FILES[name])
            _note_checksums(out, built)
            for name in failed:
                if name not in must:
                    _remove(out, name)
    errors, reasons = [], {**dict.fromkeys(built, ""), **skipped}
    for name, why in skipped.items():
        if libraries:
            errors.append(f"{FILES[name]} cannot be built: {why}")
        else:
            print(f"{FILES[name]} is not built: {why}", flush=True)
    for name, error in failed.items():
        short = error.splitlines()[0].rstrip(":")
        reasons[name] = f"{short}; more is said by: python custom_ops/build.py {name}"
        if name in must:
            errors.append(error)
        else:
            print(error, file=sys.stderr, flush=True)
            print(f"{FILES[name]} is not built: {reasons[name]}", flush=True)
    note_not_built(out, reasons)
    if errors:  # several libraries are made of the same objects
        raise BuildError("\n".join(dict.fromkeys(errors)))


@contextlib.contextmanager
def _noting(name, skipped, failed):
    """Why this library is not there, and on to the next one."""
    try:
        yield
    except Skip as skip:
        skipped[name] = str(skip)
    except BuildError as error:
        failed[name] = str(error)


def note_not_built(out, reasons):
    """Leaves word for `kernels.status()`.

    Args:
        out: the folder.
        reasons: {name of a library: why it is not there, or ""}; of others it stays what it is.
    """
    noted = Path(out) / NOT_BUILT
    whys = json.loads(noted.read_text()) if noted.exists() else {}
    whys.update({FILES[name]: why for name, why in reasons.items()})
    _write(noted, {file: why for file, why in whys.items() if why})


def _remove(out, name):
    """A library of older sources: it would be used in place of the one that could not be made."""
    file, noted = out / FILES[name], out / CHECKSUMS
    if file.exists():
        file.unlink()
        sums = json.loads(noted.read_text()) if noted.exists() else {}
        sums.pop(file.name, None)
        _write(noted, sums)


def _note_checksums(out, names):
    """Of the libraries of these names; of others it stays what it is."""
    noted = out / CHECKSUMS
    sums = json.loads(noted.read_text()) if noted.exists() else {}
    for name in names:
        sums[FILES[name]] = hashlib.sha256((out / FILES[name]).read_bytes()).hexdigest()
    if sums:
        _write(noted, sums)


def _install(file, target):
    """Copies a file into place at one moment: a process that has the old one open keeps it."""
    if target.exists() and filecmp.cmp(file, target, shallow=False):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(file, new)
    new.replace(target)
    print(f"{target.name} is built", flush=True)


def _write(target, value):
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{os.getpid()}")
    new.write_text(json.dumps(value) + "\n")
    new.replace(target)


def main():
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default=OUT, metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--describe", action="store_true", help="print the flags; for Bazel")
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY", help=", ".join(LIBRARIES))
    arguments = parser.parse_args()
    unknown = set(arguments.libraries) - set(LIBRARIES)
    if unknown:
        parser.error(f"libraries are {', '.join(LIBRARIES)}. Received: {', '.join(unknown)}")
    try:
        if arguments.describe:
            print(json.dumps(describe()))
            return
        build(arguments.out, arguments.libraries or None)
    except BuildError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
