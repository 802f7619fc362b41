"""Who may import whom: tests -> training -> keras_learnact; see CONTRIBUTING.md."""

import ast
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
    assert packages(path, anywhere=False) <= REQUIRED | {"keras_learnact"}


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
            functions = [n for n in ast.walk(ast.parse(path.read_text())) if hasattr(n, "name")]
            assert not [f.name for f in functions if f.name.startswith("test")], label(path)
