"""What pruned networks reach, as a table and a picture: accuracy against filters left.

`training.pruning` makes one of a single run, `training.sweep` of a table whose columns are
`PruningConfig`s: one line for each share of the filters that was removed, one column for each
activation.
"""

import re
import statistics
from pathlib import Path

import numpy as np

from keras_learnact.files import written
from training import table_plot
from training.outcomes import Outcome
from training.table import Table
from training.tabulate import NOT_RUN, markdown_table


def to_metrics(rows: list[dict]) -> dict:
    """The rows of pruning.csv as the metrics of one run.

    Those of the whole network, which is the first row, keep their names; the others have their
    share behind it. `diverged` is whether any of the networks did.
    """
    metrics = {}
    for row in rows:
        suffix = f"_{row['removed']}" if row["removed"] else ""
        metrics |= {f"{name}{suffix}": value for name, value in row.items() if name != "removed"}
    return metrics | {"diverged": any(row["diverged"] for row in rows)}


def to_rows(metrics: dict) -> list[dict]:
    """The rows that `to_metrics` made metrics of."""
    shares = sorted(
        int(found[1]) for name in metrics if (found := re.fullmatch(r"filters_(\d+)", name))
    )
    names = [name for name in metrics if not re.search(r"_\d+$", name)]
    rows = [{"removed": 0, **{name: metrics[name] for name in names}}]
    rows[0]["diverged"] = metrics["diverged"] and not shares  # else none would have been pruned
    return rows + [
        {"removed": share, **{name: metrics[f"{name}_{share}"] for name in names}}
        for share in shares
    ]


def overview(metrics: dict) -> str:
    """One run as lines of text."""
    header = ["removed", "filters", "parameters", "multiply-adds", "time", "accuracy"]
    lines = [
        [
            f"{row['removed']} %",
            f"{row['filters']:,}",
            f"{row['parameters']:,}",
            f"{row['multiply_adds']:,}",
            f"{row['time']:.2f}",
            "diverged" if row["diverged"] else f"{row['final_accuracy']:.2%}",
        ]
        for row in to_rows(metrics)
    ]
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in [header, *lines]
    )


def write(table: Table, name: str, outcomes: list[Outcome], folder: Path) -> None:
    """Writes `<name>.md` and `<name>.png`.

    Args:
        table: what the outcomes belong to; its columns are `PruningConfig`s.
        name: of the files.
        outcomes: finished runs, in any order; runs that are missing show as such.
        folder: where the files go; it must exist.
    """
    found = _found(table, outcomes)
    with written(folder / f"{name}.png") as file:
        table_plot.save(_picture(table, found), file)
    with written(folder / f"{name}.md", "w") as file:
        file.write(_markdown(table, name, outcomes, found))


def _found(table, outcomes):
    """For column, row and share: the rows of pruning.csv of every seed."""
    found = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.key):
        cells = found.setdefault(outcome.column, {}).setdefault(outcome.row, {})
        for row in to_rows(outcome.metrics):
            cells.setdefault(row["removed"], []).append(row)
    return {
        column.label: {r.label: here[r.label] for r in table.rows if r.label in here}
        for column in table.columns
        if (here := found.get(column.label))
    }


def _scores(table, runs):
    factor = 100 if table.unit == "%" else 1
    return [factor * run[table.metric] for run in runs if not run["diverged"]]


# The Markdown


def _markdown(table, name, outcomes, found):
    parts = [f"# {table.title}", table.claim, f"Source: {table.source}.", table.remarks]
    for column, rows in found.items():
        if len(table.columns) > 1:
            parts.append(f"## {column}")
        parts += [_accuracies(table, rows), _holds(table, rows)]
    parts += [
        f"The {table.metric.replace('_', ' ')} in {table.unit}, {_seeds(table, outcomes)}. Removed "
        "are the filters with the smallest sum of absolute weights in every convolution; left is "
        "what that makes, rounded to whole filters. **Bold** is the best of a line.",
        f"![Accuracy against filters left]({name}.png)",
        "## What it costs",
        "Time is that of inference over the whole network's of the same run: the fastest of some "
        "batches for which the networks took turns; of several seeds the median. Runs may have "
        "shared a machine: benchmarks/pruning.py measures it where nothing else runs.",
    ]
    for column, rows in found.items():
        if len(table.columns) > 1:
            parts.append(f"### {column}")
        parts.append(_costs(rows))
    parts += ["## How it was made", _making(name, outcomes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shares(rows):
    return sorted({share for cells in rows.values() for share in cells})


def _accuracies(table, rows):
    lines = []
    for share in _shares(rows):
        runs = [run for cells in rows.values() for run in cells.get(share, [])]
        texts = {row: _text(table, cells.get(share, [])) for row, cells in rows.items()}
        scores = {row: _scores(table, cells.get(share, [])) for row, cells in rows.items()}
        # What is equal as it is printed wins together; one row alone has won against nobody.
        means = {row: f"{statistics.fmean(s):.2f}" for row, s in scores.items() if s}
        if len(means) > 1:
            best = max(means.values(), key=float)
            for row in (row for row, mean in means.items() if mean == best):
                texts[row] = f"**{texts[row]}**"
        whole = [cells[0][0]["multiply_adds"] for cells in rows.values() for _ in cells[share]]
        work = [run["multiply_adds"] / all for run, all in zip(runs, whole, strict=True)]
        left = statistics.fmean(run["filters_left"] for run in runs)
        lines.append(
            [f"{share} %", f"{left:.1%}", f"{statistics.fmean(work):.1%}", *texts.values()]
        )
    return markdown_table(["removed", "filters left", "multiply-adds left", *rows], lines)


def _text(table, runs):
    scores = _scores(table, runs)
    if not scores:
        return "diverged" if runs else NOT_RUN
    text = f"{statistics.fmean(scores):.2f}"
    if len(scores) > 1:
        text += f" ± {statistics.stdev(scores):.2f}"
    lost = len(runs) - len(scores)
    return text + (f" ({lost} of {len(runs)} diverged)" if lost else "")


def _holds(table, rows):
    """Up to which share each activation reaches what the best whole network does."""
    means = {
        row: {
            share: statistics.fmean(s)
            for share, runs in cells.items()
            if (s := _scores(table, runs))
        }
        for row, cells in rows.items()
    }
    whole = {row: shares[0] for row, shares in means.items() if 0 in shares}
    if not whole:
        return ""
    best = max(whole, key=whole.get)
    lines = []
    for row, shares in means.items():
        reached = [share for share, mean in shares.items() if share and mean >= whole[best]]
        if reached:
            lines.append(f"{row} without {' %, '.join(map(str, reached))} %")
    reach = "; ".join(lines) if lines else "no pruned one"
    return (
        f"The best whole network is that with {best}, {whole[best]:.2f}. As good or better in the "
        f"mean: {reach}."
    )


def _costs(rows):
    header, lines = ["removed"], []
    for row in rows:
        header += [f"{row}: parameters", "time"]
    for share in _shares(rows):
        line = [f"{share} %"]
        for cells in rows.values():
            runs = cells.get(share)
            if not runs:
                line += [NOT_RUN, NOT_RUN]
                continue
            line.append(f"{runs[0]['parameters']:,}")
            line.append(f"{statistics.median(run['time'] for run in runs):.2f}")
        lines.append(line)
    return markdown_table(header, lines)


def _seeds(table, outcomes):
    if len(table.seeds) < 2:
        return f"one seed ({table.seeds[0]})"
    text = f"mean ± sample standard deviation over {len(table.seeds)} seeds"
    missing = len(table.runs()) - len(outcomes)
    return text + (f"; {missing} of {len(table.runs())} runs are missing" if missing else "")


def _making(name, outcomes):
    lines = [f"`{outcome.command}`" for outcome in outcomes]
    if len(outcomes) > 1:
        lines = [
            f"All of it: `python -m training.sweep --table={name}`. The command of each run is in "
            f"[{name}.csv]({name}.csv), the first is {lines[0]}."
        ]
    made = {}
    for outcome in outcomes:
        versions = outcome.facts.get("versions", {})
        text = ", ".join(f"{package} {version}" for package, version in versions.items())
        path = outcome.facts.get("activation_path")
        made.setdefault(text, {}).setdefault(path, {})[outcome.row] = None
    for text, paths in made.items():
        lines += [text] * bool(text)
        lines += [f"{', '.join(rows)}: ran {path}" for path, rows in paths.items() if path]
    return "\n".join(f"- {line}" for line in lines)


# The picture


def _picture(table, found):
    """A panel for each column, in it a line for each activation.

    The mean over the seeds, in a band of ± their sample standard deviation.
    """
    count = max(1, len(found))
    figure = table_plot.figure_class()(
        figsize=(5.6 * count, 4.2), dpi=100, layout="constrained", facecolor="white"
    )
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes, (column, rows) in zip(panels, found.items(), strict=False):
        whole = []
        for number, (row, cells) in enumerate(rows.items()):
            points = np.array(_points(table, cells)).T
            if len(points):
                left, means, spreads = points
                whole.append(means[0])
                style = {"marker": "os^Dv"[number % 5], "markersize": 5, "linewidth": 1.4}
                (line,) = axes.plot(left, means, label=row, **style)
                band = {"color": line.get_color(), "alpha": 0.12, "linewidth": 0}
                axes.fill_between(left, means - spreads, means + spreads, **band)
        if whole:
            level = {"color": "0.5", "linewidth": 1, "linestyle": ":", "zorder": 0}
            axes.axhline(max(whole), label="best whole network", **level)
            axes.legend(frameon=False)
        axes.invert_xaxis()
        axes.set_title(column)
        axes.set_xlabel("filters left in %")
        axes.set_ylabel(f"test accuracy in {table.unit}")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _points(table, cells):
    """Filters left in percent, mean and spread of the metric, for each share."""
    return [
        (
            100 * statistics.fmean(run["filters_left"] for run in runs),
            statistics.fmean(scores),
            statistics.stdev(scores) if len(scores) > 1 else 0.0,
        )
        for _, runs in sorted(cells.items())
        if (scores := _scores(table, runs))
    ]
