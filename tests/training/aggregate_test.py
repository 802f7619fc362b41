"""The count over tables, on outcomes made by hand."""

import csv
import dataclasses
import math

import numpy as np
import pytest

from training import aggregate, outcomes
from training import table as tables
from training.aggregate import Aggregate, Comparison, Count
from training.config import ImageConfig, UserError
from training.table import Column, Row, Table

pytestmark = pytest.mark.once

TWO = Table(
    title="Two experiments",
    claim="…",
    source="…",
    columns=(Column("A", ImageConfig()), Column("B", ImageConfig(network="vgg8"))),
    rows=tuple(map(Row, ("relu", "elu", "pau", "rpau"))),
    seeds=(0, 1),
)


def ran(table, column, **accuracies):
    """Outcomes of one experiment: for each row the accuracy of seed 0, 1, …; NaN: it diverged."""
    runs = {(run.column.label, run.row.label, run.seed): run for run in table.runs()}
    return [
        outcomes.Outcome(
            column,
            row,
            seed,
            outcomes.command(runs[column, row, seed]),
            {
                table.metric: 0.098 if math.isnan(value) else value,
                "diverged": math.isnan(value),
                "parameters": 1,
                "seconds_per_epoch": 1.0,
            },
            {},
            [],
        )
        for row, values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def counts(found, table=TWO):
    return aggregate.count(aggregate.compare("two", table, found, ("pau", "rpau")))


def test_each_challenger_is_counted_once_in_each_experiment():
    found = ran(TWO, "A", relu=[0.5, 0.7], elu=[0.9, 0.9], pau=[0.6, 0.8], rpau=[0.4, 0.6])
    found += ran(TWO, "B", relu=[0.5, 0.5], elu=[0.5, 0.5], pau=[0.6, 0.6], rpau=[0.7, 0.7])
    # Means: A relu 0.6, elu 0.9, pau 0.7, rpau 0.5. In B both are better than both.
    assert counts(found) == {"relu": Count(3, 1), "elu": Count(2, 2)}
    assert str(Count(3, 1)) == "3 / 1" and Count(3, 1).share == 0.75


def test_an_equal_mean_counts_as_at_least_as_good():
    found = ran(TWO, "A", relu=[0.25, 0.75], pau=[0.5, 0.5])
    assert counts(found) == {"relu": Count(1, 0)}
    # Twice 0.985, but for the rounding of float32: by 1e-8 less than the mean of the others.
    low, high = float(np.float32(0.98)), float(np.float32(0.99))
    found = ran(TWO, "A", relu=[low, high], pau=[(low + high) / 2 - 1e-8] * 2)
    assert counts(found) == {"relu": Count(1, 0)}
    # One image of 50,000 is more than rounding.
    found = ran(TWO, "A", relu=[0.985], pau=[0.985 - 1 / 50_000])
    assert counts(found) == {"relu": Count(0, 1)}


def test_only_seeds_that_both_were_run_with_are_compared():
    found = ran(TWO, "A", relu=[0.5, 0.9], pau=[0.6])
    (comparison,) = aggregate.compare("two", TWO, found, ("pau", "rpau"))
    assert comparison == Comparison("two", "A", "pau", "relu", 1, 0.6, 0.5, True)


def test_what_was_not_run_is_not_counted():
    assert counts(ran(TWO, "A", relu=[0.5], elu=[0.5])) == {}
    assert counts(ran(TWO, "A", pau=[0.5], rpau=[0.5])) == {}


def test_a_run_that_diverged_is_worse_than_one_that_did_not():
    assert counts(ran(TWO, "A", relu=[0.1, 0.1], pau=[0.9, math.nan])) == {"relu": Count(0, 1)}
    assert counts(ran(TWO, "A", relu=[0.9, math.nan], pau=[0.1, 0.1])) == {"relu": Count(1, 0)}
    assert counts(ran(TWO, "A", relu=[math.nan], pau=[math.nan])) == {}


def test_where_smaller_is_better_the_smaller_mean_wins():
    errors = dataclasses.replace(TWO, larger_is_better=False)
    found = ran(errors, "A", relu=[0.5], elu=[0.7], pau=[0.6])
    assert counts(found, errors) == {"relu": Count(0, 1), "elu": Count(1, 0)}
    assert counts(ran(errors, "A", relu=[math.nan], pau=[0.6]), errors) == {"relu": Count(1, 0)}


@pytest.fixture
def counted(tmp_path):
    """PAU's Table 5, where 16 of 608 runs were made, and two of another recipe."""
    part = tables.load("pau_table2")
    found = ran(part, "MNIST, LeNet", relu=[0.97, 0.98], maxout=[0.99], pau=[0.98, 0.99])
    found += ran(part, "MNIST, LeNet", rpau=[0.98, 0.96], slaf=[math.nan] * 3)
    old = ran(part, "MNIST, VGG-8", relu=[1.0], pau=[0.5])
    old = [dataclasses.replace(run, command=f"{run.command} --epochs=3") for run in old]
    outcomes.write_csv(found + old, tmp_path, "pau_table2")
    part = tables.load("pau_table3")
    found = ran(part, "CIFAR-10, VGG-8", relu=[0.92, 0.92], pau=[0.91, 0.92], maxout=[0.9, 0.9])
    outcomes.write_csv(found, tmp_path, "pau_table3")
    aggregate.write(tables.load("pau_table5"), "pau_table5", tmp_path)
    return tmp_path


def test_the_table_has_our_counts_beside_the_papers(counted):
    text = (counted / "pau_table5.md").read_text()
    # ReLU: 0.985 and 0.97 against 0.975; 0.915 against 0.92. Maxout: 0.98 against 0.99 twice, and
    # 0.915 against 0.9. SLAF diverged: better with PAU and with RPAU.
    assert "| relu | 1 / 2 | 33% | 34 / 8 | 81% |" in text
    assert "| maxout | 1 / 2 | 33% | 9 / 6 | 60% |" in text
    assert "| slaf | 2 / 0 | 100% | – | – |" in text
    assert "| swish | – | – | 41 / 1 | 98% |" in text


def test_the_table_says_what_it_is_computed_from(counted):
    text = (counted / "pau_table5.md").read_text()
    assert "**Computed from 16 of 608 runs**" in text
    assert "| MNIST, LeNet | pau_table2 | 10 | 75 |" in text
    assert "| MNIST, VGG-8 | pau_table2 | 0 | 75 |" in text  # an old recipe is not this experiment
    assert "| CIFAR-10, DenseNet121 | pau_table3 | 0 | 70 |" in text
    assert "| ImageNet, MobileNetV2 | pau_table4 | 0 | 13 |" in text
    assert "`python -m training.sweep --table=pau_table5`" in text


def test_every_comparison_is_kept(counted):
    with open(counted / "pau_table5.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 + 3 + 2
    assert lines[0] == {
        "table": "pau_table2",
        "column": "MNIST, LeNet",
        "challenger": "pau",
        "baseline": "relu",
        "seeds": "2",
        "challenger_mean": "0.985",
        "baseline_mean": "0.975",
        "at_least_as_good": "True",
    }
    assert {line["baseline_mean"] for line in lines if line["baseline"] == "slaf"} == {"diverged"}
    assert (counted / "pau_table5.png").stat().st_size > 10_000


def test_nothing_to_count_is_an_error_that_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match="Run one of them first: .*sweep --table=pau_table2"):
        aggregate.write(tables.load("pau_table5"), "pau_table5", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_papers_counts_are_of_the_rows_of_its_tables():
    table = tables.load("pau_table5")
    for part in table.of:
        rows = {row.label for row in tables.load(part).rows}
        assert set(table.paper) | set(table.challengers) | {"slaf"} == rows
    assert not any(part.endswith("_reduced") for part in table.of)
    assert isinstance(table, Aggregate)
