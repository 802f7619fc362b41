"""Who may import whom: tests -> training -> keras_learnact; see CONTRIBUTING.md."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {"keras_learnact", "training", "benchmarks", "tests"}
REQUIRED = {"keras", "numpy", "scipy"}  # pyproject.toml: dependencies


def files(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def label(path):
    return str(path.relative_to(ROOT))


def imports(path, anywhere=True):
    """The (module, name) pairs that a file imports; name is None in `import module`.

    With `anywhere=False` only those that run when the file itself is imported.
    """
    found, nodes = [], [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{label(path)}:{node.lineno}: a relative import"
            found += [(node.module, alias.name) for alias in node.names]
        if anywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            nodes += ast.iter_child_nodes(node)
    return found


def packages(path, anywhere=True):
    """The top-level packages outside the standard library that a file imports."""
    return {module.split(".")[0] for module, _ in imports(path, anywhere)} - set(
        sys.stdlib_module_names
    )


@pytest.mark.parametrize("path", files("keras_learnact/layers"), ids=label)
def test_layers_import_keras_and_numpy_only(path):
    assert packages(path) <= {"keras", "numpy", "keras_learnact"}


@pytest.mark.parametrize("path", files("keras_learnact"), ids=label)
def test_importing_the_library_takes_no_optional_package(path):
    # A framework's binding is imported where Keras runs on that framework.
    binding = {path.stem} if path.parent.name == "kernels" else set()
    assert packages(path, anywhere=False) <= REQUIRED | {"keras_learnact"} | binding


@pytest.mark.parametrize("path", files("keras_learnact/kernels"), ids=label)
def test_kernels_know_no_activation(path):
    for module, name in imports(path):
        if module.split(".")[0] == "keras_learnact":
            assert f"{module}.{name}".startswith("keras_learnact.kernels"), (module, name)


def includes(path):
    return set(re.findall(r'^\s*# *include [<"](.+)[>"]', path.read_text(), re.MULTILINE))


CODE = sorted(
    p for p in (ROOT / "custom_ops").rglob("*") if p.suffix in {".h", ".cuh", ".cc", ".cu"}
)


@pytest.mark.parametrize("path", [p for p in CODE if p.parent.name == "kernels"], ids=label)
def test_a_kernel_is_scalar_maths(path):
    # No framework, no C++ library: the same code runs in CUDA.
    own = {name for name in includes(path) if name.startswith("kernels/")}
    maths = {f"runtime/{name}.h" for name in ("call", "portable", "math", "philox", "pieces")}
    assert includes(path) <= own | maths | {"math.h", "stdint.h", "string.h"}


@pytest.mark.parametrize("path", [p for p in CODE if p.parent.name != "kernels"], ids=label)
def test_what_is_written_once_names_no_kernel(path):
    assert {name for name in includes(path) if name.startswith("kernels/")} <= {"kernels/all.h"}


def test_every_kernel_header_is_on_the_one_list():
    listed = re.findall(
        r"^\s*KERNEL\((\w+)\)", (ROOT / "custom_ops/kernels/all.h").read_text(), re.MULTILINE
    )
    headers = {p.stem.replace("_", "") for p in CODE if p.parent.name == "kernels"} - {"all"}
    assert headers == {name.lower() for name in listed}


@pytest.mark.parametrize("path", files("keras_learnact"), ids=label)
def test_the_library_knows_nothing_of_training_and_tests(path):
    assert packages(path) & OWN <= {"keras_learnact"}


@pytest.mark.parametrize("path", files("training") + files("benchmarks"), ids=label)
def test_training_uses_public_names_of_the_library_only(path):
    assert "tests" not in packages(path)
    for module, name in imports(path):
        parts = module.split(".") + ([name] if name else [])
        if parts[0] == "keras_learnact":
            # keras_learnact.PAU, keras_learnact.layers.PAU, keras_learnact.fitting.fit
            assert len(parts) <= 3 and not any(part.startswith("_") for part in parts), parts
            assert parts[:3] != ["keras_learnact", "layers", "base"], parts


def test_every_test_is_collected():
    # pytest looks into *_test.py only: a test in any other file would silently never run.
    for path in files("tests"):
        if not path.name.endswith("_test.py"):
            nodes = ast.walk(ast.parse(path.read_text()))
            functions = [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
            assert not [f.name for f in functions if f.name.lower().startswith("test")], label(path)
