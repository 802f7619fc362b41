"""The build of the compiled kernels, with a compiler that only notes what it is called with."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from custom_ops import build as builder
from keras_learnact.kernels import library

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="kernels are built on Linux"),
]

COMPILER = """#!/bin/sh
echo "$@" >> {log}
while [ $# -gt 0 ]; do
  case $1 in -o) output=$2;; -MF) depfile=$2;; esac
  shift
done
[ -z "$output" ] || echo made > "$output"
[ -z "$depfile" ] || echo "$output:" > "$depfile"
"""


class Compiler:
    """Makes files that say nothing; `links` gives those libraries that it was called to link."""

    def __init__(self, folder):
        self.log, self.program = folder / "log", folder / "bin" / "nvcc"
        self.program.parent.mkdir(parents=True)
        self.program.write_text(COMPILER.format(log=self.log))
        self.program.chmod(0o755)
        self.words = [str(self.program)]

    def links(self):
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        outputs = [Path(line.split()[-1]).name for line in lines if " -shared " in f" {line} "]
        return [name for name, file in builder.FILES.items() if file in outputs]


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A compiler, with sources and a build folder of this test alone."""
    shutil.copytree(builder.SOURCES, tmp_path / "custom_ops")
    monkeypatch.setattr(builder, "SOURCES", tmp_path / "custom_ops")
    monkeypatch.setattr(builder, "BUILD", tmp_path / "build")
    monkeypatch.setattr(builder, "ffi_headers", lambda: tmp_path)
    return Compiler(tmp_path / "toolkit")


@pytest.fixture
def toolkit(compiler, monkeypatch):
    """CUDA's folder, with that compiler as nvcc."""
    folder = compiler.program.parents[1]
    monkeypatch.setenv("CUDA_HOME", str(folder))
    (folder / "include").mkdir()
    (folder / "include" / "cuda_runtime.h").touch()
    return folder


def put_runtime(toolkit, place):
    file = toolkit / place / "libcudart_static.a"
    file.parent.mkdir(parents=True)
    file.touch()
    past = time.time() - 100
    os.utime(file, (past, past))
    return file


def link(name, compiler, folder):
    with builder.Builder(folder / "build") as b:
        builder.LIBRARIES[name](b, compiler.words, [])()


# What is built anew.


@pytest.mark.parametrize("changed", ["exports.lds", "old_glibc.o", "libtensorflow_framework.so.2"])
def test_a_library_is_linked_anew_when_something_that_is_linked_changes(
    changed, compiler, tmp_path
):
    if changed == "old_glibc.o" and not builder.wrapped():
        pytest.skip("nothing of old_glibc.cc is linked here")
    link("tf", compiler, tmp_path)
    assert compiler.links() == ["tf"]
    link("tf", compiler, tmp_path)
    assert compiler.links() == []
    (file,) = tmp_path.rglob(changed)
    file.touch()
    link("tf", compiler, tmp_path)
    assert compiler.links() == ["tf"]


def test_cuda_is_linked_anew_when_its_runtime_changes(compiler, toolkit, tmp_path):
    file = put_runtime(toolkit, "lib64")
    link("cuda", compiler, tmp_path)
    link("cuda", compiler, tmp_path)
    assert compiler.links() == ["cuda"]
    file.touch()
    link("cuda", compiler, tmp_path)
    assert compiler.links() == ["cuda"]


@pytest.mark.parametrize("place", ["lib64", "lib", "targets/x86_64-linux/lib"])
def test_the_runtime_of_cuda_is_found(place, compiler, toolkit, tmp_path):
    file = put_runtime(toolkit, place)
    link("cuda", compiler, tmp_path)
    assert f" {file} " in compiler.log.read_text()


def test_a_toolkit_without_its_runtime_is_a_reason_not_to_build(compiler, toolkit, tmp_path):
    with pytest.raises(builder.Skip, match=r"no libcudart_static\.a in .*toolkit"):
        link("cuda", compiler, tmp_path)


# What fails.


@pytest.fixture
def fails(compiler, monkeypatch, tmp_path):
    """`fails(name, how)` lets one library fail; the others are files that say nothing."""

    def library_that_works(name):
        def link():
            file = tmp_path / "build" / builder.FILES[name]
            file.write_text("new")
            return file

        return lambda *_: link

    working = {name: library_that_works(name) for name in builder.LIBRARIES}
    monkeypatch.setattr(builder, "LIBRARIES", working)
    monkeypatch.setattr(builder, "core", lambda *_: [])
    monkeypatch.setattr(builder, "compiler", lambda: compiler.words)
    monkeypatch.setattr(library, "FOLDER", str(tmp_path / "out"))

    def fails(name, how):
        error = {
            "starting": builder.BuildError("the installed TensorFlow cannot be imported:\nlines"),
            "linking": builder.BuildError("x.o cannot be made:\nlines"),
            "skipped": builder.Skip("there is no nvcc"),
        }[how]

        def raises(*_):
            raise error

        working[name] = (lambda *_: raises) if how == "linking" else raises

    return fails


def run(tmp_path, monkeypatch, *names):
    """The exit code of the program."""
    monkeypatch.setattr(sys, "argv", ["build.py", "--out", str(tmp_path / "out"), *names])
    try:
        builder.main()
    except SystemExit as end:
        return end.code
    return 0


def installed(tmp_path):
    files = {file.name for file in (tmp_path / "out").glob("*.so")}
    return [name for name, file in builder.FILES.items() if file in files]


@pytest.mark.parametrize("how", ["starting", "linking", "skipped"])
@pytest.mark.parametrize("name", ["native", "cuda"])
def test_without_names_native_and_cuda_may_fail(name, how, fails, tmp_path, monkeypatch, capsys):
    fails(name, how)
    assert run(tmp_path, monkeypatch) == 0
    assert installed(tmp_path) == [other for other in builder.FILES if other != name]
    why = {
        "starting": "the installed TensorFlow cannot be imported",
        "linking": "x.o cannot be made",
        "skipped": "there is no nvcc",
    }[how]
    said = capsys.readouterr()
    line = f"{builder.FILES[name]} is not built: {why}"
    assert line in said.out and ("lines" in said.err) == (how != "skipped")
    # what kernels.status() shows
    assert library.missing("tf_native" if name == "native" else name).startswith(line)


@pytest.mark.parametrize("how", ["starting", "linking"])
@pytest.mark.parametrize("name", ["tf", "xla"])
def test_without_names_the_others_may_not(name, how, fails, tmp_path, monkeypatch, capsys):
    fails(name, how)
    assert run(tmp_path, monkeypatch) == 1
    assert installed(tmp_path) == [other for other in builder.FILES if other != name]
    assert "lines" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["starting", "linking", "skipped"])
@pytest.mark.parametrize("name", ["tf", "native", "cuda"])
def test_a_library_that_was_named_must_be_built(name, how, fails, tmp_path, monkeypatch, capsys):
    fails(name, how)
    assert run(tmp_path, monkeypatch, name, "xla") == 1
    assert installed(tmp_path) == ["xla"]
    expected = f"{builder.FILES[name]} cannot be built: there is no nvcc"
    assert (expected if how == "skipped" else "lines") in capsys.readouterr().err


def test_an_error_of_several_libraries_is_said_once(fails, tmp_path, monkeypatch, capsys):
    fails("tf", "linking")
    fails("xla", "linking")
    assert run(tmp_path, monkeypatch) == 1
    assert capsys.readouterr().err.count("lines") == 1


def test_one_that_may_fail_leaves_no_older_one_behind(fails, tmp_path, monkeypatch):
    """It would be loaded, and say that it should be built anew, which fails."""
    assert run(tmp_path, monkeypatch) == 0
    fails("native", "linking")
    assert run(tmp_path, monkeypatch) == 0
    assert "native" not in installed(tmp_path)
    # One that was skipped may have been built in another environment, say with TensorFlow.
    fails("cuda", "skipped")
    assert run(tmp_path, monkeypatch) == 0
    assert "cuda" in installed(tmp_path)
    assert library.missing("tf_native").startswith(f"{builder.FILES['native']} is not built: x.o")


def test_building_one_library_keeps_what_is_known_of_the_others(fails, tmp_path, monkeypatch):
    fails("cuda", "skipped")
    assert run(tmp_path, monkeypatch) == 0
    assert run(tmp_path, monkeypatch, "tf") == 0
    noted = json.loads((tmp_path / "out" / builder.NOT_BUILT).read_text())
    assert noted == {builder.FILES["cuda"]: "there is no nvcc"}
