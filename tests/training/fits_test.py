import dataclasses
import json

import keras
import numpy as np
import pytest

import keras_learnact as kla
from training import fits
from training.config import ImageConfig, RegressionConfig
from training.table import Column, Row, Table

TABLE = Table(
    title="Signals",
    claim="",
    source="",
    columns=tuple(
        Column(name, RegressionConfig(dataset=name))
        for name in ("sum_of_sines", "signal", "diabetes")
    ),
    rows=(Row("relu"), Row("pau")),
    seeds=(0, 1),
    metric="rmse_mean",
)


def leave(run, workdir, diverged=False):
    """What a finished run leaves; its network gives 1 + its seed everywhere."""
    folder = workdir / run.folder
    (folder / "fold_1").mkdir(parents=True)
    result = {
        "config": dataclasses.asdict(run.config),
        "metrics": {"rmse_mean": 0.5, "diverged": diverged},
    }
    (folder / "result.json").write_text(json.dumps(result))
    layers = [keras.Input((2 if run.column.label == "sum_of_sines" else 1,)), kla.PAU()]
    last = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer="ones")
    model = keras.Sequential([*layers, last, keras.layers.Rescaling(1 + run.seed)])
    model.save(folder / "fold_1" / "model.keras")


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn, as (the ends of the inputs, {title: values of the network})."""
    found, original = [], fits._draw

    def draw(panels, data, networks):
        panels = list(panels)
        original(panels, data, networks)
        lines = {p.get_title(): p.lines[-1].get_ydata() for p in panels if p.lines}
        images = {p.get_title(): p.images[0].get_array() for p in panels if p.images}
        found.append({**lines, **images})

    monkeypatch.setattr(fits, "_draw", draw)
    return found


def test_the_first_sound_seed_of_each_row_is_drawn_where_the_data_can_be_seen(tmp_path, drawn):
    for run in TABLE.runs():
        first = (run.row.label, run.seed)
        leave(run, tmp_path / "runs", diverged=first == ("relu", 0))
    fits.write(TABLE, "signals", tmp_path / "runs", tmp_path)
    assert (tmp_path / "signals_fits.png").read_bytes().startswith(b"\x89PNG")
    plane, line = drawn
    for values in drawn:
        np.testing.assert_array_equal(values["relu, RMSE 0.5"], 2)
        np.testing.assert_array_equal(values["pau, RMSE 0.5"], 1)
    assert set(plane) == {"relu, RMSE 0.5", "pau, RMSE 0.5"}
    assert set(line) == {"data", *plane}


def test_where_nothing_has_finished_nothing_is_drawn(tmp_path):
    fits.write(TABLE, "signals", tmp_path, tmp_path)
    images = dataclasses.replace(TABLE, columns=(Column("digits", ImageConfig()),))
    fits.write(images, "images", tmp_path, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_table_draws_its_axes_the_right_way_round(tmp_path, drawn, monkeypatch):
    run = TABLE.runs()[0]
    leave(run, tmp_path)
    first = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x[:, :1])])
    monkeypatch.setattr(keras.saving, "load_model", lambda path: first)
    fits.write(TABLE, "signals", tmp_path, tmp_path)
    (values,) = drawn
    image = values["relu, RMSE 0.5"]
    assert (np.diff(image, axis=1) > 0).all() and (np.diff(image, axis=0) == 0).all()
