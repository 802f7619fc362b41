import dataclasses
import random

import pytest

from training import cells, tabulate
from training.config import ImageConfig, UserError
from training.outcomes import Outcome
from training.table import Column, Row, Table

pytestmark = pytest.mark.once

TABLE = Table(
    title="Two by two",
    claim="PAU is better than ReLU.",
    source="Nobody, 2020",
    columns=(
        Column("A", ImageConfig(epochs=2), paper={"pau": "88.5"}),
        Column("B", ImageConfig(network="cnn", epochs=2), overrides={"pau": {"momentum": 0.5}}),
    ),
    rows=(Row("relu"), Row("pau")),
    seeds=(0, 1, 2),
    remarks="Invented.",
)
# Differences of pau and relu: in A 2, 1 and 3 percent points, in B -1, 0 and 1.
ACCURACIES = {
    ("A", "relu"): (0.84, 0.86, 0.85),
    ("A", "pau"): (0.86, 0.87, 0.88),
    ("B", "relu"): (0.50, 0.50, 0.50),
    ("B", "pau"): (0.49, 0.50, 0.51),
}


def outcome(column, row, seed, accuracy, *, diverged=False, seconds=2.0, facts=None):
    metrics = {
        "final_accuracy": accuracy,
        "diverged": diverged,
        "parameters": 61706 + 40 * (row == "pau"),
        "seconds_per_epoch": seconds,
    }
    path = "kernel" if row == "pau" else "keras"
    facts = {"activation_path": path, "backend": "jax", "versions": {"keras": "3.12"}} | (
        facts or {}
    )
    curve = [{"epoch": epoch, "val_accuracy": accuracy, "seconds": seconds} for epoch in (1, 2)]
    return Outcome(column, row, seed, f"run {row} {seed}", metrics, facts, curve)


def outcomes(accuracies=ACCURACIES):
    return [
        outcome(column, row, seed, accuracy, seconds=3.0 if row == "pau" else 2.0)
        for (column, row), values in accuracies.items()
        for seed, accuracy in enumerate(values)
    ]


def text_of(found, table=TABLE):
    collected = cells.collect(table, found)
    return tabulate.markdown(table, "two", collected, cells.rank(table, collected))


def lines_of(found, start, table=TABLE):
    return [line for line in text_of(found, table).splitlines() if line.startswith(start)]


def test_the_whole_text_of_a_table_of_two_by_two(tmp_path):
    tabulate.write(TABLE, "two", outcomes(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two.md", "two.png"]
    text = (tmp_path / "two.md").read_text(encoding="utf-8")
    # p = 1 - √(12 / 14) of the differences 2, 1, 3, and 1 of -1, 0, 1. There is one pair of rows,
    # so nothing is corrected; 2.48 is 4.303, the quantile of Student's t, over √3.
    assert (
        text
        == """\
# Two by two

PAU is better than ReLU.

Source: Nobody, 2020.

Invented.

| activation | A | best | published | B | best |
| --- | ---: | ---: | ---: | ---: | ---: |
| relu | 85.00 ± 1.00 | 86.00 |  | **50.00 ± 0.00** | 50.00 |
| pau | **87.00 ± 1.00** | **88.00** | 88.5 | **50.00 ± 1.00** | **51.00** |

The final accuracy in %; larger is better. Mean ± sample standard deviation over 3 seeds (0, 1 \
and 2), and the best of them. **Bold** is the best of a column, with all that are equal as printed.

![Test accuracy by epoch](two.png)

## What the rows cost

| activation | A: parameters | time per epoch / ReLU | B: parameters | time per epoch / ReLU |
| --- | ---: | ---: | ---: | ---: |
| relu | 61,706 | 1 (2 s) | 61,706 | 1 (2 s) |
| pau | 61,746 | 1.50 | 61,746 | 1.50 |

Time is that of training, the median over epochs and seeds; seeds that were trained in one step \
share it evenly. Runs may have shared a machine, so it is no benchmark: those are in \
benchmarks/results.

## Are the differences more than luck?

Over the seeds (3 pairs): every row against the one with the best mean of its column, by a paired \
t test, two-sided, at 5 %. p is corrected by Holm for all pairs of rows (1), because the best row \
is chosen by the numbers that are tested; the 95 % intervals are of each difference by itself. \
What is not told apart need not be equal: with 3 pairs the largest difference must be 2.5 times \
the standard deviation of its differences to be found. The test supposes that the differences are \
normally distributed, which so few cannot show. The Wilcoxon signed-rank test supposes less, but \
cannot reach 5 % here: its smallest p with 3 pairs is 0.25.

- A: **pau** has the best mean. Not told apart from it: relu.
- B: **relu** has the best mean. Not told apart from it: pau.

| behind the best by | A | p | B | p |
| --- | ---: | ---: | ---: | ---: |
| relu | 2.00 [−0.48, 4.48] | 0.074 | best |  |
| pau | best |  | 0.00 [−2.48, 2.48] | 1 |

Over the experiments nothing is compared: the Friedman test takes at least 3 rows that have run in \
2 columns.

## How it was made

- Repeat it: `python -m training.sweep --table=two`. The command of each run is in \
[two.csv](two.csv), the first is `run relu 0`.
- A: data set digits, network lenet, 2 epochs, batches of 64, adam 0.002.
- B: data set digits, network cnn, 2 epochs, batches of 64, adam 0.002; pau with momentum=0.5.
- jax backend, keras 3.12.
- Path of the activations: keras (relu); kernel (pau).
- 12 runs with 60 seconds of training, added up; tests, compilation of programs and reading of \
data come on top.
"""
    )


def test_the_same_outcomes_in_another_order_give_the_same_text():
    mixed = outcomes()
    random.Random(0).shuffle(mixed)
    assert text_of(mixed) == text_of(outcomes())


def test_missing_seeds_and_missing_cells_show_as_such():
    found = [run for run in outcomes() if run.key not in {("A", "pau", 0), ("A", "pau", 1)}]
    pau, *_, gap = lines_of(found, "| pau")[0], lines_of(found, "| relu")[-1]
    assert pau.startswith("| pau | **88.00** (1 of 3 seeds) | **88.00** | 88.5 |")
    assert gap == "| relu | 3.00 (1 pair) |  | best |  |"
    assert "2 of 12 runs are missing." in text_of(found)
    assert "- A: **pau** has the best mean. Fewer than 2 seeds in common with it: relu." in text_of(
        found
    )


def test_a_column_that_only_one_row_has_has_no_winner():
    found = [run for run in outcomes() if run.key[:2] != ("B", "relu")]
    assert lines_of(found, "| relu")[0] == "| relu | 85.00 ± 1.00 | 86.00 |  | – | – |"
    assert lines_of(found, "| pau")[0].endswith("| 50.00 ± 1.00 | 51.00 |")
    assert lines_of(found, "| relu")[1] == "| relu | 61,706 | 1 (2 s) | – | – |"
    assert lines_of(found, "| pau")[1] == "| pau | 61,746 | 1.50 | 61,746 | 3 s |"


def test_a_cell_that_the_table_does_not_have_is_not_missing():
    without = dataclasses.replace(TABLE.columns[1], without=("relu",))
    table = dataclasses.replace(TABLE, columns=(TABLE.columns[0], without))
    text = text_of([run for run in outcomes() if run.key[:2] != ("B", "relu")], table)
    assert "–: not part of this experiment." in text
    assert "missing" not in text


def test_diverged_runs_are_counted_and_do_not_win():
    found = [
        *(outcome("A", "relu", seed, 0.8 + seed / 100) for seed in range(3)),
        *(outcome("A", "pau", seed, 0.9 + seed / 100, diverged=seed == 1) for seed in range(3)),
        *(
            outcome("B", row, seed, 0.1, diverged=True)
            for row in ("relu", "pau")
            for seed in (0, 1)
        ),
    ]
    relu, pau = lines_of(found, "| relu")[0], lines_of(found, "| pau")[0]
    # Two of two there, of three that are planned; the best of a single run may still be the best.
    assert relu == "| relu | **81.00 ± 1.00** | 82.00 |  | diverged 2/2 |  |"
    assert pau == ("| pau | 91.00 ± 1.41 (1 of 3 diverged) | **92.00** | 88.5 | diverged 2/2 |  |")
    text = text_of(found)
    assert "- B: every row has a diverged run." in text
    assert "Diverged runs are left out here, which flatters pau." in text
    assert "- A: **relu** has the best mean. The same difference in all seeds: pau." in text


def test_nothing_is_tested_where_everything_diverged(tmp_path):
    found = [
        outcome(column, row, seed, float("nan"), diverged=True)
        for column, row in ACCURACIES
        for seed in range(3)
    ]
    tabulate.write(TABLE, "two", found, tmp_path)
    text = (tmp_path / "two.md").read_text(encoding="utf-8")
    assert "| pau | diverged 3/3 |  | 88.5 | diverged 3/3 |  |" in text
    assert "Nothing is tested: that takes two rows with two seeds in common." in text


def test_a_table_of_one_seed_says_that_it_knows_no_spread():
    table = dataclasses.replace(TABLE, seeds=(0,), columns=TABLE.columns[:1])
    found = [run for run in outcomes() if run.seed == 0 and run.column == "A"]
    assert lines_of(found, "| relu", table)[0] == "| relu | 84.00 |  |"
    assert lines_of(found, "| pau", table)[0] == "| pau | **86.00** | 88.5 |"
    text = text_of(found, table)
    assert "One seed (0), so nothing is known of the spread." in text
    assert "Nothing is tested" in text
    assert "Over the experiments" not in text


def test_what_is_equal_as_printed_wins_together():
    accuracies = {("A", "relu"): (0.85001, 0.84999), ("A", "pau"): (0.85, 0.85001)}
    relu, pau = (lines_of(outcomes(accuracies), f"| {row}")[0] for row in ("relu", "pau"))
    assert "**85.00 ± 0.00** (2 of 3 seeds) | **85.00**" in relu
    assert "**85.00 ± 0.00** (2 of 3 seeds) | **85.00**" in pau


def test_smaller_is_better_without_a_unit():
    table = dataclasses.replace(TABLE, unit="", larger_is_better=False, columns=TABLE.columns[:1])
    found = [run for run in outcomes() if run.column == "A"]
    assert lines_of(found, "| relu", table)[0].startswith(
        "| relu | **0.850 ± 0.010** | **0.840** |"
    )
    assert "The final accuracy; smaller is better." in text_of(found, table)
    assert "| pau | 0.020 [−0.005, 0.045] | 0.074 |" in text_of(found, table)


def test_times_are_absolute_where_the_baseline_is_missing():
    rows = (Row("relu", {"max_value": 6.0}, "relu"), Row("pau"))
    table = dataclasses.replace(TABLE, rows=rows)
    assert lines_of(outcomes(), "| relu", table)[1] == "| relu | 61,706 | 2 s | 61,706 | 2 s |"
    assert "/ ReLU" not in text_of(outcomes(), table)


def test_runs_of_several_machines_are_counted_apart():
    other = {"backend": "tensorflow", "versions": {"keras": "3.13"}, "trained_together": [0, 1]}
    found = outcomes()[:-1] + [outcome("B", "pau", 2, 0.51, facts=other)]
    assert "- 11 of 12 runs: jax backend, keras 3.12.\n" in text_of(found)
    assert "- 1 of 12 runs: tensorflow backend, keras 3.13, 2 seeds in one step.\n" in text_of(
        found
    )


def several_columns(count, rows=("relu", "pau", "deu")):
    """A table of so many columns, in all of which the rows come in the order of their names."""
    columns = tuple(Column(f"C{i}", ImageConfig()) for i in range(count))
    table = dataclasses.replace(TABLE, rows=tuple(map(Row, rows)), columns=columns, seeds=(0,))
    found = [
        outcome(column.label, row, 0, 0.9 - i / 10)
        for column in columns
        for i, row in enumerate(rows)
    ]
    return table, found


def test_two_columns_are_too_few_for_a_post_hoc_test():
    table, found = several_columns(2)
    text = text_of(found, table)
    # 6 · 6 orders of three rows in two columns; in 6 of them the columns agree: p = 1 / 6.
    assert "p of the Friedman test, by permutation: 0.167; ranks so different may be luck." in text
    assert (
        "2 columns are too few to say which rows differ: by Nemenyi's test two mean ranks would "
        in (text)
    )
    assert "have to differ by 2.34, and the first of 3 differs from the last by 2 at most." in text
    assert lines_of(found, "| deu", table)[-1] == "| deu | 3.00 |"


def test_columns_that_agree_tell_which_rows_differ(tmp_path):
    table, found = several_columns(4)
    tabulate.write(table, "four", found, tmp_path)
    assert (tmp_path / "four_ranks.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "four.md").read_text(encoding="utf-8")
    assert "by permutation: 0.005; the columns agree on the ranks more than luck does." in text
    # 2.343 · √(3 · 4 / (6 · 4)) = 1.66
    assert "By Nemenyi's test rows differ whose mean ranks differ by 1.66." in text
    assert "| relu | 1.00 |  |\n| pau | 2.00 | 0.333 |\n| deu | 3.00 | 0.013 |" in text
    assert "(four_ranks.png)" in text


def test_the_diagram_of_the_ranks_goes_when_they_are_no_longer_told_apart(tmp_path):
    tabulate.write(*several_columns(4)[:1], "four", several_columns(4)[1], tmp_path)
    table, found = several_columns(4)
    tabulate.write(table, "four", [run for run in found if run.row != "deu"], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["four.md", "four.png"]


def test_a_package_that_is_missing_is_found_before_training(monkeypatch):
    tabulate.assert_packages()
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="drawn by matplotlib"):
        tabulate.assert_packages()


def test_a_failure_leaves_the_files_that_were_there(tmp_path):
    tabulate.write(TABLE, "two", outcomes(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="two outcomes"):
        tabulate.write(TABLE, "two", outcomes() + outcomes(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_further_metrics_show_their_mean_over_the_runs_that_did_not_diverge():
    def of_class(run, few):
        return dataclasses.replace(run, metrics={**run.metrics, "few_accuracy": few})

    table = dataclasses.replace(TABLE, columns=TABLE.columns[:1], further=("few_accuracy",))
    found = [
        of_class(outcome("A", "relu", seed, 0.8 + seed / 100, diverged=seed == 2), few)
        for seed, few in enumerate((0.1, 0.2, 0.9))
    ]
    lines = text_of(found, table).splitlines()
    assert "| activation | A | best | few accuracy | published |" in lines
    (line,) = (line for line in lines if line.startswith("| relu | 80.50"))
    assert line.endswith("| 15.00 |  |")
    assert "| pau | – | – | – | 88.5 |" in lines
