"""A table that is counted from others: how often the new activations were not beaten."""

import dataclasses
import math
import statistics
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from keras_learnact.files import written
from training import outcomes, table_plot
from training import table as tables
from training.config import UserError
from training.tabulate import markdown_table


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """A count over other tables.

    Args:
        title: its heading.
        claim: what it is to show.
        source: whose claim that is, with table and year.
        of: the names of the tables whose experiments are counted.
        challengers: labels of the rows that are held against all others, the baselines.
        paper: for the label of a baseline, how often the paper counts a challenger as at least as
            good as it, and how often as worse.
        remarks: what a reader must know.
    """

    title: str
    claim: str
    source: str
    of: tuple[str, ...]
    challengers: tuple[str, ...]
    paper: dict[str, tuple[int, int]]
    remarks: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A challenger against a baseline in one experiment.

    Args:
        table: the name of the table of the experiment.
        column: the experiment.
        challenger: the label of its row.
        baseline: the label of the other row.
        seeds: how many seeds both have been run with.
        challenger_mean: its mean of the table's metric over these; what is worse than every number,
            if a run diverged.
        baseline_mean: that of the baseline.
        at_least_as_good: whether the challenger's is as good or better.
    """

    table: str
    column: str
    challenger: str
    baseline: str
    seeds: int
    challenger_mean: float
    baseline_mean: float
    at_least_as_good: bool


class Count(NamedTuple):
    """How many comparisons with a baseline ended so."""

    at_least_as_good: int
    worse: int

    @property
    def share(self) -> float:
        return self.at_least_as_good / sum(self)

    def __str__(self):
        return f"{self.at_least_as_good} / {self.worse}"


def compare(
    name: str, table: tables.Table, found: list[outcomes.Outcome], challengers: tuple[str, ...]
) -> list[Comparison]:
    """Every challenger against every other row of a table, experiment by experiment.

    Compared are means over the seeds that both were run with. Where both diverged there is nothing
    to compare.
    """
    worst = -math.inf if table.larger_is_better else math.inf
    values = {}
    for outcome in found:
        value = worst if outcome.diverged else outcome.metrics[table.metric]
        values.setdefault((outcome.column, outcome.row), {})[outcome.seed] = value
    comparisons = []
    for column in table.columns:
        for challenger in challengers:
            for baseline in (row.label for row in table.rows if row.label not in challengers):
                ours = values.get((column.label, challenger), {})
                theirs = values.get((column.label, baseline), {})
                seeds = sorted(set(ours) & set(theirs))
                if not seeds:
                    continue
                means = [statistics.fmean(of[seed] for seed in seeds) for of in (ours, theirs)]
                if means == [worst, worst]:
                    continue
                # Accuracies are float32 numbers: what is equal may differ by 1e-7. One image of
                # 50,000 is 2e-5.
                equal = math.isclose(*means, rel_tol=1e-6)
                good = equal or (means[0] > means[1]) == table.larger_is_better
                comparisons.append(
                    Comparison(name, column.label, challenger, baseline, len(seeds), *means, good)
                )
    return comparisons


def count(comparisons: list[Comparison]) -> dict[str, Count]:
    """For each baseline how often a challenger was at least as good, and how often worse."""
    ended = Counter((c.baseline, c.at_least_as_good) for c in comparisons)
    baselines = dict.fromkeys(c.baseline for c in comparisons)
    return {b: Count(ended[b, True], ended[b, False]) for b in baselines}


def write(aggregate: Aggregate, name: str, folder: Path) -> None:
    """Writes `<name>.csv`, a line for each comparison, `<name>.md`, the counts, and `<name>.png`.

    Args:
        aggregate: what is counted.
        name: its name among the tables.
        folder: where the CSV files of its tables are, and where it goes.

    Errors: a `UserError` if none of its tables has two rows to compare, or matplotlib is missing.
    """
    parts = {part: tables.load(part) for part in aggregate.of}
    found = {
        part: outcomes.merge(table, outcomes.read_csv(folder, part), [])
        for part, table in parts.items()
    }
    comparisons = [
        comparison
        for part, table in parts.items()
        for comparison in compare(part, table, found[part], aggregate.challengers)
    ]
    if not comparisons:
        raise UserError(
            f"{name} is counted from the results of {', '.join(parts)}. Received: {folder}, with "
            "nothing of them to compare. Run one of them first: "
            f"python -m training.sweep --table={aggregate.of[0]}"
        )
    counts = count(comparisons)
    picture = _picture(aggregate, counts)
    outcomes.write_rows(folder / f"{name}.csv", [_printed(c) for c in comparisons])
    with written(folder / f"{name}.md", "w") as file:
        file.write(_markdown(aggregate, name, counts, _progress(parts, found)))
    with written(folder / f"{name}.png") as file:
        table_plot.save(picture, file)


def _progress(parts, found):
    """For each experiment of the tables: their names, how many runs there are, and of how many."""
    progress = []
    for part, table in parts.items():
        wanted = Counter(run.column.label for run in table.runs())
        there = Counter(outcome.column for outcome in found[part])
        progress += [(part, column, there[column], of) for column, of in wanted.items()]
    return progress


def _printed(comparison):
    return {
        name: "diverged" if isinstance(value, float) and math.isinf(value) else value
        for name, value in dataclasses.asdict(comparison).items()
    }


def _markdown(aggregate, name, counts, progress):
    """The text; `progress` as `_progress` gives it."""
    there, wanted = (sum(row[place] for row in progress) for place in (2, 3))
    lines = []
    for baseline in _baselines(aggregate, counts):
        cells = [baseline]
        for source in (counts, aggregate.paper):
            ended = Count(*source[baseline]) if baseline in source else None
            cells += [str(ended), f"{ended.share:.0%}"] if ended else ["–", "–"]
        lines.append(cells)
    parts = [
        f"# {aggregate.title}",
        aggregate.claim,
        f"Source: {aggregate.source}.",
        aggregate.remarks,
        f"**Computed from {there:,} of {wanted:,} runs**, which are listed below.",
        markdown_table(
            ["baseline", "at least as good / worse", "share", "the paper's", "share"], lines
        ),
        f"How often {_challengers(aggregate)} was at least as good as the baseline, and how often "
        "worse.",
        f"![The shares as bars]({name}.png)",
        "## What it is computed from",
        markdown_table(
            ["experiment", "table", "runs", "of"], [[c, t, *n] for t, c, *n in progress]
        ),
        f"`python -m training.sweep --table={name}` counts again; every comparison is in "
        f"[{name}.csv]({name}.csv).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _baselines(aggregate, counts):
    return list(counts | aggregate.paper)


def _challengers(aggregate):
    return " or ".join(aggregate.challengers)


def _picture(aggregate, counts):
    """Two bars for each baseline: our share and the paper's."""
    baselines = _baselines(aggregate, counts)
    size = (7, 1.3 + 0.36 * len(baselines))
    figure = table_plot.figure_class()(figsize=size, layout="constrained", dpi=150)
    axes = figure.subplots()
    for source, label, offset, color in (
        (counts, "here", -0.2, "#0072B2"),
        (aggregate.paper, "in the paper", 0.2, "#bbbbbb"),
    ):
        rows = [(i + offset, Count(*source[b])) for i, b in enumerate(baselines) if b in source]
        places = [place for place, _ in rows]
        bars = axes.barh(places, [c.share for _, c in rows], 0.38, color=color, label=label)
        axes.bar_label(bars, [f" {c}" for _, c in rows], fontsize=7)
    axes.set_yticks(range(len(baselines)), baselines)
    axes.set_ylim(len(baselines) - 0.5, -0.5)  # the first on top
    axes.set_xlim(0, 1.15)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel(
        f"comparisons in which {' or '.join(aggregate.challengers)} is at least as good"
    )
    axes.axvline(0.5, color="black", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
