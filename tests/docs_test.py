"""Every example of the documentation runs: each page is one program, from top to bottom."""

import json
import re
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"


def label(path):
    return str(path.relative_to(DOCS))


def examples(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


PAGES = [
    pytest.param(
        page,
        id=label(page),
        marks=[pytest.mark.tensorflow] if "import tensorflow" in page.read_text() else [],
    )
    for page in sorted(DOCS.rglob("*.md"))
    if examples(page)
]


@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # of tf2onnx
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where they leave their files
    names = {"__name__": page.stem}
    for example in examples(page):
        exec(compile(example, label(page), "exec"), names)


@pytest.fixture
def shortened(monkeypatch):
    """What a notebook does in minutes, in seconds: two small steps for each `fit`; no data set."""
    fit = keras.Model.fit

    def two_steps(self, x, y, *arguments, callbacks=(), **options):
        self.run_eagerly = True
        return fit(self, x[:8], y[:8], batch_size=4, epochs=1, verbose=0, callbacks=callbacks)

    def mnist():
        rng = np.random.default_rng(0)
        sizes = (16, 500)
        return tuple(
            (rng.integers(0, 256, (n, 28, 28), "uint8"), rng.integers(0, 10, n)) for n in sizes
        )

    monkeypatch.setattr(keras.Model, "fit", two_steps)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", mnist)
    display = types.SimpleNamespace(Image=lambda path: Path(path).read_bytes())
    monkeypatch.setitem(sys.modules, "IPython.display", display)


@pytest.mark.tensorflow
@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.ipynb")), ids=label)
def test_the_notebooks_run_and_were_run(page, tmp_path, monkeypatch, shortened):
    monkeypatch.chdir(tmp_path)
    cells = [c for c in json.loads(page.read_text())["cells"] if c["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    names = {"__name__": page.stem}
    for cell in cells:
        assert not [o for o in cell["outputs"] if o["output_type"] == "error"]
        exec(compile("".join(cell["source"]), label(page), "exec"), names)
