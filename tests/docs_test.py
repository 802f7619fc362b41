"""Every example of the documentation runs: each page is one program, from top to bottom."""

import re
from pathlib import Path

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
