import dataclasses
import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from training import cells, significance, table_plot
from training.config import ImageConfig, RegressionConfig
from training.outcomes import Outcome
from training.recipes import PAU_ACTIVATIONS
from training.table import Column, Row, Table

pytestmark = pytest.mark.once

TABLE = Table(
    title="A table",
    claim="None.",
    source="None",
    columns=(Column("A", ImageConfig()), Column("B", ImageConfig())),
    rows=tuple(map(Row, PAU_ACTIVATIONS)),
    seeds=(0, 1),
)


def outcome(row, curve, seed=0, column="A", diverged=False, parameters=100):
    metrics = {"final_accuracy": curve[-1], "diverged": diverged, "parameters": parameters}
    points = [{"epoch": i + 1, "val_accuracy": value} for i, value in enumerate(curve)]
    return Outcome(column, row, seed, "a command", metrics, {}, points)


def drawn(runs, table=TABLE):
    return table_plot.results(table, cells.collect(table, runs))


def labels(axes):
    """The texts right of the axes, from top to bottom."""
    return [text.get_text() for text in sorted(axes.texts, key=lambda text: -text.xyann[1])]


def without_curve(row, value, seed=0, **metrics):
    metrics = {"final_accuracy": value, "diverged": False, **metrics}
    return Outcome("A", row, seed, "a command", metrics, {}, [])


REGRESSION = dataclasses.replace(
    TABLE, unit="mm", larger_is_better=False, columns=(Column("A", RegressionConfig()),)
)


def test_what_is_trained_is_told_from_what_is_not():
    learning = [row.label for row in TABLE.rows if table_plot.learns(row)]
    assert learning == "prelu maxout mixture slaf apl srelu pau rpau".split()
    assert table_plot.learns(Row("deu"))


def test_a_line_is_the_mean_over_the_seeds_and_its_band_the_sample_deviation():
    figure = drawn([outcome("pau", (0.5, 0.75)), outcome("pau", (0.7, 0.75), seed=1)])
    (axes,) = figure.axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [(1, 60), (2, 75)])
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    # 0.5 and 0.7 are 0.1 from their mean: √(2 · 0.1²) = 0.1414
    assert (heights.min(), heights.max()) == pytest.approx((60 - 14.14, 75), abs=5e-3)
    assert labels(axes) == ["pau  75.00"]


def test_each_column_with_runs_has_a_panel_and_labels_come_from_best_to_worst():
    runs = [outcome("relu", (0.5, 0.8)), outcome("pau", (0.6, 0.9)), outcome("elu", (0.6, 0.85))]
    (axes,) = drawn(runs).axes
    assert labels(axes) == ["pau  90.00", "elu  85.00", "relu  80.00"]
    figure = drawn([*runs, outcome("pau", (0.1, 0.2), column="B")])
    assert [axes.get_title() for axes in figure.axes] == ["A", "B"]
    styles = [line.get_linestyle() for line in axes.lines]
    assert styles == ["--", "--", "-"]  # relu and elu do not learn


def test_a_diverged_seed_is_left_out_and_named():
    (axes,) = drawn(
        [
            outcome("pau", (0.5, 0.75)),
            outcome("pau", (0.1,), seed=1, diverged=True),
            outcome("slaf", (0.1,), diverged=True),
        ]
    ).axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_ydata(), [50, 75])
    assert labels(axes) == ["pau  75.00", "slaf diverged 1/1", "pau diverged 1/2"]


def test_everything_diverged_is_still_a_picture():
    (axes,) = drawn([outcome("pau", (0.1,), diverged=True)]).axes
    assert labels(axes) == ["pau diverged 1/1"]


def test_a_row_far_below_all_others_does_not_press_them_together():
    good = {"relu": 0.98, "elu": 0.982, "swish": 0.984, "pau": 0.986}
    runs = [outcome(row, (0.9, value)) for row, value in good.items()]
    (axes,) = drawn([*runs, outcome("slaf", (0.1, 0.11))]).axes
    low, high = axes.get_ylim()
    assert 97 < low < 98 < 98.6 < high < 99
    assert labels(axes)[-1] == "slaf  ↓ 11.00"


def test_rows_that_are_equal_and_one_seed_of_one_epoch_have_an_axis():
    (axes,) = drawn([outcome("relu", (0.5,)), outcome("pau", (0.5,))]).axes
    low, high = axes.get_ylim()
    assert low < 50 < high
    left, right = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if left <= tick <= right] == [1]


@pytest.mark.parametrize("spread", [0.05, 0.0001])
def test_fifteen_labels_neither_overlap_nor_leave_the_picture(spread):
    random = np.random.default_rng(0)
    figure = drawn(
        [
            outcome(row.label, (0.5, 0.9, 0.9 + random.normal(0, spread)), seed, column)
            for column in "AB"
            for row in TABLE.rows
            for seed in (0, 1)
        ]
    )
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axes in figure.axes:
        for text in axes.texts:
            text.update_positions(renderer)
        # Of the texts alone, without the lines that lead to them.
        boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
        assert len(boxes) == 15
        boxes.sort(key=lambda box: box.y0)
        for lower, upper in zip(boxes, boxes[1:], strict=False):
            assert lower.y1 <= upper.y0 + 1  # a pixel of the letters' box is empty
        others = [other.get_window_extent(renderer) for other in figure.axes if other is not axes]
        for box in boxes:
            assert 0 < box.x0 and box.x1 < figure.bbox.width
            assert not any(box.overlaps(other) for other in others)


@pytest.mark.parametrize(
    "run, against",
    [
        (outcome("pau", (0.5,)), "epochs"),
        (outcome("pau", (0.5,)), "parameters"),
        (without_curve("pau", 0.5), "epochs"),
    ],
)
def test_the_words_below_one_panel_fit_in_the_picture(run, against):
    figure = drawn([run], dataclasses.replace(TABLE, against=against))
    (caption,) = figure.texts
    box = caption.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert 0 < box.x0 and box.x1 < figure.bbox.width


def test_a_metric_without_curves_is_a_ring_a_bar_and_the_seeds():
    runs = [
        without_curve("relu", 3.0),
        without_curve("pau", 1.0),
        without_curve("pau", 2.0, seed=1),
    ]
    (axes,) = drawn(runs, REGRESSION).axes
    rings = [line for line in axes.lines if line.get_markersize() == 8]
    # The best, which is the smaller one here, is above.
    np.testing.assert_allclose([ring.get_xydata()[0] for ring in rings], [(1.5, 2), (3, 1)])
    assert labels(axes) == ["pau  1.5", "relu  3"]
    assert axes.get_xlabel() == "final accuracy, mm"


def test_a_point_far_beyond_all_others_is_named_at_the_edge():
    errors = {"relu": 1.0, "elu": 1.1, "pau": 1.2, "slaf": 99.0}
    (axes,) = drawn([without_curve(*item) for item in errors.items()], REGRESSION).axes
    assert axes.get_xlim()[1] < 1.5
    assert labels(axes)[-1] == "slaf  → 99"


def test_a_table_against_parameters_has_one_line_for_each_row_through_all_columns():
    table = dataclasses.replace(TABLE, against="parameters")
    runs = [
        outcome("pau", (0.9,), column="B", parameters=1000),
        outcome("pau", (0.8,), parameters=100),
        outcome("relu", (0.7,), parameters=90),
        outcome("slaf", (0.1,), column="B", diverged=True),
    ]
    (axes,) = drawn(runs, table).axes
    relu, pau = axes.containers
    np.testing.assert_allclose(pau.lines[0].get_xydata(), [(100, 80), (1000, 90)])
    np.testing.assert_allclose(relu.lines[0].get_xydata(), [(90, 70)])
    assert axes.get_xscale() == "log"
    assert labels(axes) == ["pau  90.00", "relu  70.00", "slaf diverged 1/1 (B)"]


def test_the_diagram_of_ranks_names_every_row():
    scores = {str(i): {row: -j for j, row in enumerate("abcd")} for i in range(6)}
    figure = table_plot.ranks(significance.rank(scores))
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {"a  1.00", "b  2.00", "3.00  c", "4.00  d"}
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in axes.texts:
        assert figure.bbox.fully_containsx(text.get_window_extent(renderer).x0)
        assert figure.bbox.fully_containsy(text.get_window_extent(renderer).y0)


def test_the_same_picture_is_saved_as_the_same_bytes():
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        table_plot.save(drawn([outcome("pau", (0.5, 0.75))]), file)
    assert files[0].getvalue() == files[1].getvalue()
    assert files[0].getvalue().startswith(b"\x89PNG")
