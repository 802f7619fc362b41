"""That the benchmark of pruned networks runs; the times that it measures are never tested."""

import csv
import dataclasses
import math

import keras
import pytest

from benchmarks import pruning
from training.config import UserError


def test_a_quick_run_has_every_row_with_what_a_hand_counts(tmp_path):
    # One of the two modes that are compiled, the one that compiles faster.
    mode = "graph" if keras.backend.backend() == "tensorflow" else "jit"
    config = dataclasses.replace(pruning.QUICK, modes=(mode,), results=str(tmp_path))
    rows = pruning.run(config)
    assert [(row["pass"], row["activation"], row["removed"]) for row in rows] == [
        (part, "relu", "50 %") for part in ("inference", "training step")
    ]
    for row in rows:
        # LeNet of 3, 8 and 60 filters, see tests/training/smaller_test.py.
        assert row["parameters"] == 18_720 / 61_706
        assert row["multiply-adds"] == 136_680 / 416_520
        assert 0 < row["time"] == row["time over ReLU's"] < math.inf
    stem = f"pruning_{keras.backend.backend()}"
    with open(tmp_path / f"{stem}_time.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    assert "lenet, batches of 2" in (tmp_path / f"{stem}.md").read_text()


@pytest.mark.parametrize(
    "wrong", [{"networks": ("vgg9",)}, {"removed": (0,)}, {"modes": ("eager",)}]
)
def test_what_cannot_be_measured_is_an_error(wrong):
    with pytest.raises(UserError, match="Received"):
        pruning.run(dataclasses.replace(pruning.QUICK, **wrong))
