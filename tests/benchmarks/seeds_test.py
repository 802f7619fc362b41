"""That the benchmark of several seeds runs; what it measures is never tested."""

import csv
import dataclasses
import math

import keras
import pytest

from benchmarks import seeds
from training.config import UserError

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="needs Keras on JAX")


@on_jax
def test_a_quick_run_has_every_row_and_positive_ratios(tmp_path):
    rows = seeds.run(dataclasses.replace(seeds.QUICK, results=str(tmp_path)))
    assert [(row["network"], row["activation"], row["seeds"]) for row in rows] == [
        ("mlp", "relu", 2)
    ]
    for row in rows:
        assert 0 < row["vmap"] < math.inf and 0 < row["in turn"] < math.inf
        assert row["takes"] in ("vmap", "in turn") and 0 <= row["spread"] < math.inf
    with open(tmp_path / "seeds_jax_time.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 1
    assert "| mlp" in (tmp_path / "seeds_jax.md").read_text()


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX can")
def test_another_backend_is_refused(tmp_path):
    with pytest.raises(UserError, match="need JAX"):
        seeds.run(dataclasses.replace(seeds.QUICK, results=str(tmp_path)))
