"""What README.md, CONTRIBUTING.md and the usage of programs for developers say is true."""

import dataclasses
import re
from pathlib import Path

import keras
import pytest
from absl import flags

from tests.native import run
from training import sweep
from training.config import ImageConfig, RegressionConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {"README.md": README, "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text()}


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for example in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(example, names)
    assert isinstance(names["same"], keras.Sequential)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]*)\)", PAGES[page]):
        assert link.startswith("https://") or (ROOT / link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_make_knows_its_targets(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^ {4}|`)make ([a-z -]+?)(?=`| {2})", PAGES[page], re.MULTILINE)
    assert named
    assert set(" ".join(named).split()) <= targets


def test_what_make_lists_is_made_also_where_a_file_has_that_name():
    makefile = (ROOT / "Makefile").read_text()
    listed = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    phony = " ".join(re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE)).split()
    assert sorted(phony) == sorted(listed)


def test_the_usage_of_the_native_tests_names_each():
    named = re.findall(r"^([a-z]+)(?: |$)", run.__doc__, re.MULTILINE)
    assert sorted(named) == sorted(run.SANITIZERS)


def test_the_commands_name_programs_and_presets_that_exist():
    assert (programs := re.findall(r"python -m training\.(\w+)", README))
    assert (presets := re.findall(r"--config=(\S+)", README))
    for path in [f"training/{program}.py" for program in programs] + presets:
        assert (ROOT / path).exists(), path


def test_the_commands_name_flags_that_exist():
    fields = dataclasses.fields(ImageConfig) + dataclasses.fields(RegressionConfig)
    of_a_sweep = flags.FlagValues()
    sweep.define_flags(of_a_sweep)
    known = {field.name for field in fields} | {"config", "workdir", "help"} | set(of_a_sweep)
    assert set(re.findall(r"[ `]--(\w+)", README)) <= known
