"""The runs of a table by column and row, with what is computed of each: mean, spread, winners."""

import dataclasses
import math
import statistics
from collections.abc import Iterable

from training import significance
from training.outcomes import Outcome
from training.table import Table


@dataclasses.dataclass(frozen=True)
class Cell:
    """The runs of one row in one column.

    Args:
        runs: all of them.
        scores: for each seed that did not diverge the metric, in the unit of the table.
    """

    runs: tuple[Outcome, ...]
    scores: dict[int, float]

    @property
    def diverged(self) -> int:
        return len(self.runs) - len(self.scores)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores.values())

    @property
    def spread(self) -> float | None:
        """The sample standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.scores.values()) if len(self.scores) > 1 else None

    @property
    def seconds_per_epoch(self) -> float:
        """The median over the runs. Seeds that were trained together share their time evenly."""
        return statistics.median(seconds_per_epoch(run) for run in self.runs)


Cells = dict[tuple[str, str], Cell]  # by the labels of column and row


def seconds_per_epoch(run: Outcome) -> float:
    """Of training; of those of seeds that were trained together its share."""
    return run.metrics["seconds_per_epoch"] / len(run.facts.get("trained_together", [run.seed]))


def collect(table: Table, outcomes: Iterable[Outcome]) -> Cells:
    """The outcomes by column and row, in the order of the table; cells without any are missing.

    Errors: a ValueError for outcomes that the table does not have, that are there twice, or that
    have no such metric.
    """
    factor = 100 if table.unit == "%" else 1
    runs, places = {}, {(run.column.label, run.row.label) for run in table.runs()}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.key):
        place = outcome.key[:2]
        if place not in places:
            raise ValueError(f"{table.title!r} has no such run. Received: {outcome.key}")
        if table.metric not in outcome.metrics:
            raise ValueError(
                f"{table.title!r} shows the metric {table.metric!r}. Received: a run "
                f"{outcome.key} with {', '.join(outcome.metrics)}"
            )
        same = runs.setdefault(place, [])
        if any(other.seed == outcome.seed for other in same):
            raise ValueError(f"Each run is wanted once. Received: two outcomes of {outcome.key}")
        same.append(outcome)
    return {
        (column.label, row.label): _cell(runs[column.label, row.label], table.metric, factor)
        for column in table.columns
        for row in table.rows
        if (column.label, row.label) in runs
    }


def rows_of(table: Table, found: Cells, column: str) -> list[str]:
    """The labels of the rows that a column has."""
    return [row.label for row in table.rows if (column, row.label) in found]


def rank(table: Table, found: Cells) -> significance.Ranking | None:
    """How the rows rank over the columns, by their mean; a row with a diverged run ranks last."""
    scores = {
        column.label: {
            row: math.nan if (cell := found[column.label, row]).diverged else cell.mean
            for row in rows_of(table, found, column.label)
        }
        for column in table.columns
    }
    return significance.rank(scores, table.larger_is_better)


def ranked(table: Table, found: Cells, column: str) -> list[str]:
    """The rows of a column without a diverged run, the best mean first."""
    whole = [row for row in rows_of(table, found, column) if not found[column, row].diverged]
    sign = -1 if table.larger_is_better else 1
    return sorted(whole, key=lambda row: sign * found[column, row].mean)


def decimals(table: Table, found: Cells, column: str) -> int:
    """How many a column shows: two of percents; else so many that its spreads have two figures."""
    if table.unit == "%":
        return 2
    here = [found[column, row] for row in rows_of(table, found, column)]
    sizes = [cell.spread for cell in here if cell.spread]
    if not sizes:  # four figures of the metric itself
        sizes = [abs(cell.mean) / 100 for cell in here if cell.scores and cell.mean]
    if not sizes:
        return 2
    return min(6, max(0, 1 - math.floor(math.log10(statistics.median(sizes)))))


def _cell(runs, metric, factor):
    scores = {
        run.seed: factor * run.metrics[metric]
        for run in runs
        if not run.diverged and math.isfinite(run.metrics[metric])
    }
    return Cell(tuple(runs), scores)
