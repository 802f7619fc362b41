import math

import pytest

from training import cells
from training.config import ImageConfig, RegressionConfig
from training.outcomes import Outcome
from training.table import Column, Row, Table


def table(**fields):
    values = {
        "title": "A table",
        "claim": "None.",
        "source": "None",
        "columns": (Column("A", ImageConfig()), Column("B", ImageConfig())),
        "rows": (Row("relu"), Row("pau"), Row("deu")),
        "seeds": (0, 1, 2),
    }
    return Table(**values | fields)


def outcome(column, row, seed, value, diverged=False, metric="final_accuracy", **facts):
    metrics = {metric: value, "diverged": diverged, "seconds_per_epoch": 2.0}
    return Outcome(column, row, seed, "a command", metrics, facts, [])


def test_mean_and_sample_deviation_of_a_fraction_are_in_percent():
    runs = [outcome("A", "pau", seed, value) for seed, value in enumerate((0.5, 0.25, 0.75))]
    (cell,) = cells.collect(table(), runs).values()
    assert cell.scores == {0: 50.0, 1: 25.0, 2: 75.0}
    assert (cell.mean, cell.spread) == (50.0, 25.0)


def test_another_unit_is_as_it_is_and_one_seed_has_no_spread():
    (cell,) = cells.collect(table(unit="mm"), [outcome("A", "pau", 0, 0.5)]).values()
    assert (cell.mean, cell.spread) == (0.5, None)


def test_a_run_that_diverged_or_has_no_number_has_no_score():
    runs = [
        outcome("A", "pau", 0, 0.1, diverged=True),
        outcome("A", "pau", 1, math.nan),
        outcome("A", "pau", 2, 0.5),
    ]
    (cell,) = cells.collect(table(), runs).values()
    assert (cell.scores, cell.diverged) == ({2: 50.0}, 2)


def test_cells_stand_in_the_order_of_the_table_and_runs_in_that_of_the_seeds():
    runs = [
        outcome("B", "relu", 0, 0.5),
        outcome("A", "pau", 1, 0.5),
        outcome("A", "relu", 0, 0.5),
        outcome("A", "pau", 0, 0.5),
    ]
    found = cells.collect(table(), runs)
    assert list(found) == [("A", "relu"), ("A", "pau"), ("B", "relu")]
    assert [run.seed for run in found["A", "pau"].runs] == [0, 1]
    assert cells.rows_of(table(), found, "A") == ["relu", "pau"]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([outcome("A", "pau", 0, 0.5)] * 2, r"two outcomes of \('A', 'pau', 0\)"),
        ([outcome("A", "elu", 0, 0.5)], r"no such run. Received: \('A', 'elu', 0\)"),
        ([outcome("A", "pau", 0, 0.5, metric="rmse")], "'final_accuracy'. Received: .* rmse"),
    ],
)
def test_runs_of_another_table_and_runs_that_are_there_twice_are_errors(runs, message):
    with pytest.raises(ValueError, match=message):
        cells.collect(table(), runs)


def test_rows_are_ranked_by_their_mean_and_diverged_ones_do_not_compete():
    runs = [
        outcome("A", "relu", 0, 0.5),
        outcome("A", "pau", 0, 0.75),
        outcome("A", "deu", 0, 0.875),
        outcome("A", "deu", 1, 0.1, diverged=True),
    ]
    found = cells.collect(table(), runs)
    assert cells.ranked(table(), found, "A") == ["pau", "relu"]
    assert cells.ranked(table(larger_is_better=False), found, "A") == ["relu", "pau"]
    assert cells.ranked(table(), found, "B") == []


def test_ranks_over_the_columns_are_those_of_the_means():
    values = {"relu": 0.25, "pau": 0.75, "deu": 0.5}
    runs = [outcome(column, row, 0, value) for column in "AB" for row, value in values.items()]
    runs.append(outcome("B", "pau", 1, 0.1, diverged=True))
    ranking = cells.rank(table(), cells.collect(table(), runs))
    assert ranking.mean_ranks == {"deu": 1.5, "pau": 2.0, "relu": 2.5}


@pytest.mark.parametrize(
    ("unit", "values", "digits"),
    [
        ("%", (0.5, 0.625), 2),
        ("mm", (54.0, 54.5), 2),  # a spread of 0.35
        ("mm", (5400.0, 5450.0), 0),  # 35
        ("mm", (0.0540, 0.0545), 5),  # 0.00035
        ("mm", (54.0,), 2),  # four figures of a metric without spread: 54.00
        ("mm", (0.0,), 2),
    ],
)
def test_as_many_decimals_are_shown_as_the_spread_has_two_figures(unit, values, digits):
    regression = table(unit=unit, columns=(Column("A", RegressionConfig()),))
    runs = [outcome("A", "pau", seed, value) for seed, value in enumerate(values)]
    assert cells.decimals(regression, cells.collect(regression, runs), "A") == digits


def test_seeds_that_were_trained_together_share_their_time():
    runs = [outcome("A", "pau", seed, 0.5, trained_together=[0, 1]) for seed in (0, 1)]
    runs.append(outcome("A", "relu", 0, 0.5))
    found = cells.collect(table(), runs)
    assert found["A", "pau"].seconds_per_epoch == 1.0
    assert found["A", "relu"].seconds_per_epoch == 2.0
