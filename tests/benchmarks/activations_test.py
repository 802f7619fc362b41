"""That the benchmarks run and that their tables are whole; what they measure is never tested."""

import csv
import dataclasses
import math
import sys
from pathlib import Path

import keras
import pytest

import keras_learnact as kla
from benchmarks import activations, costs, modes, subjects, tables, training_step
from benchmarks.command_line import parsed
from benchmarks.rivals import Rivals
from training.config import UserError


def ratios(row):
    """Its numbers; a cell is None where the table has nothing to say."""
    return [value for value in row.values() if isinstance(value, float)]


def written(folder, name):
    path = Path(folder, f"{name}.csv")
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_quick_run_has_every_row_and_positive_ratios(tmp_path):
    found = activations.run(dataclasses.replace(activations.QUICK, results=str(tmp_path)))
    names, every_mode = ("relu", "mixture", "maxout"), modes.modes()
    assert [(r["pass"], r["activation"], r["mode"]) for r in found["time"]] == [
        (part, name, mode) for part in activations.PASSES for name in names for mode in every_mode
    ]
    assert [(r["activation"], r["mode"]) for r in found["memory"]] == [
        (name, mode) for name in names for mode in every_mode
    ]
    for row in found["time"]:
        *of_time, spread = ratios(row)
        # Copy, own and plain copy, ReLU, exp; the formula in every mode but of ReLU.
        assert len(of_time) == 5 + (len(every_mode) if row["activation"] != "relu" else 0), row
        assert all(0 < ratio < math.inf for ratio in of_time) and 0 <= spread < math.inf
        assert row["over copy"] >= max(row["over own copy"], row["over plain copy"])
    for row in found["memory"]:
        assert all(0 < ratio < math.inf for ratio in ratios(row)), row
    stem = f"activations_{keras.backend.backend()}"
    page = (tmp_path / f"{stem}.md").read_text()
    for table in ("time", "memory"):
        assert len(written(tmp_path, f"{stem}_{table}")) == len(found[table])
    assert page.count("| maxout") == 3 * len(every_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{stem}.md",
        f"{stem}_memory.csv",
        f"{stem}_time.csv",
    ]


def test_a_quick_run_of_costs_has_every_row_under_the_class_name(tmp_path):
    config = dataclasses.replace(costs.QUICK, results=str(tmp_path / "costs.csv"))
    found = costs.run(config)
    about, *rows = (tmp_path / "costs.csv").read_text().splitlines()
    assert about.startswith("# Measured on ") and keras.backend.backend() in about
    assert "\n".join(rows) + "\n" == tables.comma_separated(found)
    assert [row["activation"] for row in found] == ["APL", "Maxout"]
    for row in found:
        assert all(0 < row[part] < math.inf for part in activations.PASSES)


def test_what_is_not_all_never_replaces_the_costs_of_all(monkeypatch):
    quick = parsed(costs.Config(), costs.QUICK, ["--quick"])
    assert Path(quick.results) == Path("build/quick/costs.csv")
    with pytest.raises(UserError, match="--activations=pau.*--results"):
        costs.run(parsed(costs.Config(), costs.QUICK, ["--activations=pau"]))


def test_a_quick_run_of_training_steps_has_every_row_and_positive_ratios(tmp_path):
    config = dataclasses.replace(training_step.QUICK, results=str(tmp_path))
    rows = training_step.run(config)
    compiled = [mode for mode in modes.modes() if mode in ("graph", "jit")]
    assert [(r["network"], r["activation"], r["mode"]) for r in rows] == [
        ("lenet", name, mode) for name in ("relu", "pau") for mode in compiled
    ]
    for row in rows:
        step, spread = ratios(row)
        assert 0 < step < math.inf and 0 <= spread < math.inf
    stem = f"training_step_{keras.backend.backend()}"
    assert len(written(tmp_path, f"{stem}_time")) == len(rows)
    assert "lenet, batches of 2" in (tmp_path / f"{stem}.md").read_text()


def test_every_activation_of_the_package_is_measured():
    learnable = {
        name.lower()
        for name, value in vars(kla.layers).items()
        if isinstance(value, type) and issubclass(value, kla.LearnableActivation)
    } - {"learnableactivation"}
    learnable = learnable - {"swish"} | {"learned_swish"}  # Keras has a fixed function of its name
    asked = subjects.asked((), ("layer", "8"), ("jit",))
    assert {s.name for s in asked} == learnable | {"relu", "maxout", "rrelu", "metaaconc"}
    # What has parameters of groups is measured with each sharing, what has none once.
    assert len(asked) == 2 * len(learnable) + 4


def test_a_formula_is_measured_without_kernels():
    layer = kla.PAU()
    assert modes.as_formula(lambda: layer.path)() == "reference: kernels.disabled()"


def test_flags_are_the_fields_of_the_configuration():
    arguments = [
        "--quick",
        "--sizes=12,14",
        "--sharing=channel,8",
        "--rounds=3",
        "--formula_sizes=",
    ]
    config = parsed(activations.Config(), activations.QUICK, arguments)
    assert config == dataclasses.replace(
        activations.QUICK,
        sizes=(12, 14),
        sharing=("channel", "8"),
        rounds=3,
        formula_sizes=(),
        results="build/quick/results",
    )


def test_what_a_backend_has_not_is_refused():
    with pytest.raises(UserError, match="--modes"):
        modes.modes(("lazy",))
    with pytest.raises(UserError, match="--networks"):
        training_step.run(dataclasses.replace(training_step.QUICK, networks=("alexnet",)))


def test_a_python_without_torch_is_refused(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without any package
    python.chmod(0o755)
    with pytest.raises(UserError, match="which has not"):
        Rivals(str(python))
    with pytest.raises(UserError, match="must be a Python"):
        Rivals("/nowhere/python")
