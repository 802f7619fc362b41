"""The door for setuptools: the compiled kernels. Everything else stands in pyproject.toml.

KERAS_LEARNACT_LIBRARIES says which libraries must be built, see custom_ops/build.py: "tf xla" for
a wheel that runs on many versions of TensorFlow and JAX, "none" for Python only. Without it all
are built that this machine can build; none, if it has no compiler.
"""

import importlib.util
import os
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
LIB = "keras_learnact/kernels/lib"

spec = importlib.util.spec_from_file_location("builder", ROOT / "custom_ops" / "build.py")
builder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(builder)

wanted = os.environ.get("KERAS_LEARNACT_LIBRARIES", "").split()
why_not = "KERAS_LEARNACT_LIBRARIES=none" if wanted == ["none"] else builder.why_not()


class BuildKernels(Command):
    """Builds the libraries into the package; for an editable install, into the source tree."""

    description = "build the compiled kernels"
    user_options = []

    def initialize_options(self):
        self.build_lib, self.editable_mode = None, False

    def finalize_options(self):
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    @property
    def folder(self):
        return (ROOT if self.editable_mode else Path(self.build_lib)) / LIB

    def run(self):
        if why_not and wanted in ([], ["none"]):
            print(f"keras_learnact without compiled kernels: {why_not}", flush=True)
            builder.note_not_built(self.folder, dict.fromkeys(builder.LIBRARIES, why_not))
        else:
            builder.build(self.folder, wanted or None)

    def get_outputs(self):
        return [] if self.editable_mode else [str(file) for file in self.folder.glob("*")]

    def get_output_mapping(self):
        return {}

    def get_source_files(self):
        return [
            str(file.relative_to(ROOT))
            for file in (ROOT / "custom_ops").rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        ]


class Wheel(bdist_wheel):
    """Any Python 3; with kernels, the systems that these run on."""

    def get_tag(self):
        if why_not:
            return super().get_tag()
        files = list(Path(self.bdist_dir or LIB).rglob("*.so")) or list((ROOT / LIB).glob("*.so"))
        return "py3", "none", builder.platform_tag(files)


class WithKernels(Distribution):
    def has_ext_modules(self):
        return not why_not


build.sub_commands.append(("build_kernels", None))
setup(
    cmdclass={"build_kernels": BuildKernels, "bdist_wheel": Wheel},
    distclass=WithKernels,
    ext_modules=[],
)
