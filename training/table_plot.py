"""The picture of a table: accuracy by epoch, or the metric of each row, with its spread."""

import inspect
import math
import statistics

import numpy as np
from scipy.optimize import isotonic_regression

import keras_learnact as kla
from training import activations, significance
from training.cells import Cells, rows_of
from training.config import UserError
from training.table import Row, Table

# Okabe and Ito's palette, which all forms of colour blindness tell apart, without the yellow that
# white paper swallows; Tol's wine in its place. What learns beyond its end begins again, dotted.
_COLOURS = "#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #882255 #000000".split()
_FIXED, _AXES, _NOTES = "#8A8A8A", "#999999", "#555555"
_DOTTED = (0, (1, 1))
_DASHES = (0, (5, 2)), (0, (2, 2)), (0, (8, 2, 2, 2)), (0, (12, 3)), (0, (5, 2, 2, 2, 2, 2))

# Inches, 100 pixels each: a panel, and in it the room beside the axes; the labels are right.
_WIDTH, _HEIGHT = 6.4, 4.6
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.62, 1.75, 0.4, 0.5
_CAPTION = 0.5
_LINE = 0.15  # from one label to the next

# A row so many times as far from the best one as the median row leaves the picture, at its edge.
_FAR = 6

_KINDS = "Coloured: activations that learn. Grey: those that do not."


def results(table: Table, cells: Cells):
    """The picture of a table.

    Where the runs have curves of test accuracy, they are drawn: one panel for each column, one
    line for each row, the mean over the seeds in a band of ± their sample standard deviation. A
    table `against="parameters"` has its metric over the number of parameters. Any other has its
    metric as a point for each row. Diverged runs are left out and named at the edge; so are rows
    so much worse than most that they would press all others into one line.

    Args:
        table: what is drawn.
        cells: by the labels of column and row, from `training.cells.collect`.

    Returns:
        A `matplotlib.figure.Figure`.

    Errors: a `UserError` if matplotlib is not installed.
    """
    styles = _styles(table.rows)
    if table.against == "parameters":
        caption = "Points: mean over the seeds. Bars: ± their sample standard deviation.\n"
        figure, (axes,) = _panels([table.title], caption + _KINDS)
        _draw_sizes(table, axes, cells, styles)
        return figure
    runs = [run for cell in cells.values() for run in cell.runs]
    if any(_tested(table) in point for run in runs for point in run.curve):
        draw = _draw_curves
        caption = "Lines: mean over the seeds. Bands: ± their sample standard deviation.\n"
        caption += "Early epochs may lie below. "
    else:
        draw = _draw_points
        caption = "Rings: mean over the seeds. Bars: ± their sample standard deviation.\n"
    columns = [c.label for c in table.columns if rows_of(table, cells, c.label)]
    figure, panels = _panels(columns, caption + _KINDS)
    for column, axes in zip(columns, panels, strict=True):
        draw(
            table, axes, {row: cells[column, row] for row in rows_of(table, cells, column)}, styles
        )
    return figure


def ranks(ranking: significance.Ranking):
    """The diagram of critical differences: mean ranks, and bars over what is not told apart."""
    width, height = 9.0, 1.3 + 0.14 * len(ranking.mean_ranks)
    figure = figure_class()(figsize=(width, height), dpi=100)
    axes = figure.add_axes((0.2, 0.02, 0.6, 1 - 0.75 / height))
    significance.posthocs().critical_difference_diagram(
        ranking.mean_ranks,
        ranking.p_values,
        ax=axes,
        label_fmt_left="{label}  {rank:.2f}",
        label_fmt_right="{rank:.2f}  {label}",
        label_props={"fontsize": 8.5},
        color_palette=["black"] * len(ranking.mean_ranks),
        elbow_props={"linewidth": 0.8},
        marker_props={"s": 12},
        crossbar_props={"linewidth": 2.2, "color": _COLOURS[0], "marker": ""},
    )
    axes.tick_params(labelsize=7.5, color=_AXES)
    title = f"Mean ranks in {len(ranking.columns)} experiments. A bar joins what is not told apart."
    axes.set_title(title, fontsize=9, pad=14)
    return figure


def save(figure, file) -> None:
    """Writes a figure as PNG."""
    figure.savefig(file, format="png", metadata={"Software": None})


def figure_class():
    """matplotlib's Figure, which needs no display. Errors: a `UserError` if it is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "A table is drawn by matplotlib, which is not installed. Get it with: "
            "pip install 'keras_learnact[training]'"
        ) from error
    return Figure


def learns(row: Row) -> bool:
    """Whether the activation of a row has anything that is trained."""
    kind = activations.registry().get(row.activation)
    learnable = (kla.LearnableActivation, kla.Maxout)
    return inspect.isclass(kind) and issubclass(kind, learnable)


def _styles(rows):
    """How the line of each row looks, the same in every panel."""
    styles, learnable, fixed = {}, 0, 0
    for row in rows:
        if learns(row):
            turn, place = divmod(learnable, len(_COLOURS))
            line, width = (_DOTTED if turn else "-"), 1.6
            styles[row.label] = {"color": _COLOURS[place], "linestyle": line, "linewidth": width}
            learnable += 1
        else:
            dashes = _DASHES[fixed % len(_DASHES)]
            styles[row.label] = {"color": _FIXED, "linestyle": dashes, "linewidth": 1.1}
            fixed += 1
    return styles


def _panels(titles, caption):
    """A figure, and an empty panel for each title."""
    across = 1 if len(titles) < 2 else 2 if len(titles) < 5 else 3
    down = max(1, math.ceil(len(titles) / across))
    width, height = across * _WIDTH, down * _HEIGHT + _CAPTION
    figure, panels = figure_class()(figsize=(width, height), dpi=100), []
    inside = (_WIDTH - _LEFT - _RIGHT) / width, (_HEIGHT - _TOP - _BOTTOM) / height
    for i, title in enumerate(titles):
        row, column = divmod(i, across)
        left, bottom = column * _WIDTH + _LEFT, height - (row + 1) * _HEIGHT + _BOTTOM
        axes = figure.add_axes((left / width, bottom / height, *inside))
        axes.set_title(title, fontsize=10)
        axes.tick_params(labelsize=8, color=_AXES, length=2.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_AXES)
        panels.append(axes)
    figure.text(0.5, 0.1 / height, caption, ha="center", va="bottom", fontsize=8, color=_NOTES)
    return figure, panels


def _draw_curves(table, axes, cells, styles):
    """The test accuracy of each row by epoch."""
    curves = {row: curve for row, cell in cells.items() if len((curve := _curve(table, cell))[0])}
    for row, (epochs, means, spreads) in curves.items():
        axes.plot(epochs, means, marker="o" if len(epochs) == 1 else None, **styles[row])
        # Many bands lie upon each other.
        band = {
            "color": styles[row]["color"],
            "linewidth": 0,
            "alpha": min(0.12, 0.8 / len(curves)),
        }
        axes.fill_between(epochs, means - spreads, means + spreads, **band)
    if curves:
        ends = {row: means[-1] for row, (_, means, _) in curves.items()}
        near = _near(ends, [spreads[-1] for _, _, spreads in curves.values()], larger=True)
        best, worst = max(map(ends.get, near)), min(map(ends.get, near))
        # The last values have most of the picture, however low all of them began.
        lowest = min(curves[row][1].min() for row in near)
        bottom = max(lowest, worst - max(0.6 * (best - worst), 0.005 * abs(best)))
        # So wide a band as leaves the picture would press the lines together.
        tops = [min((m + s).max(), m.max() + best - bottom) for _, m, s in map(curves.get, near)]
        _set_limits(axes.set_ylim, bottom, max(tops))
        last = max(epochs[-1] for epochs, _, _ in curves.values())
        shown = [epochs[means >= bottom][0] - 1 for epochs, means, _ in map(curves.get, near)]
        axes.set_xlim(*((max(1, min(shown)), last) if last > 1 else (0.5, 1.5)))
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_xlabel("epoch", fontsize=8.5)
    axes.set_ylabel(f"test {_tested(table)[4:].replace('_', ' ')}{_unit(table)}", fontsize=8.5)
    places = {row: (epochs[-1], means[-1]) for row, (epochs, means, _) in curves.items()}
    texts = {row: _number(table, y) for row, (_, y) in places.items()}
    _label(axes, places, texts, styles, _diverged(cells))


def _curve(table, cell):
    """Epochs, and the mean and deviation of the test accuracy over the seeds that are sound."""
    tested, factor = _tested(table), 100 if table.unit == "%" else 1
    values = {}
    for run in cell.runs:
        for point in run.curve if run.seed in cell.scores else []:
            if math.isfinite(point.get(tested, math.nan)):
                values.setdefault(point["epoch"], []).append(factor * point[tested])
    epochs = sorted(values)
    means = [statistics.fmean(values[epoch]) for epoch in epochs]
    spreads = [statistics.stdev(v) if len(v := values[epoch]) > 1 else 0.0 for epoch in epochs]
    return np.array(epochs), np.array(means), np.array(spreads)


def _tested(table):
    """What metrics.csv calls the table's metric after each epoch."""
    return "val_" + table.metric.removeprefix("final_").removeprefix("best_")


def _draw_sizes(table, axes, cells, styles):
    """The metric over the number of parameters, one line for each row through all columns."""
    lines = {}
    for (_, row), cell in cells.items():
        if cell.scores:
            point = cell.runs[0].metrics["parameters"], cell.mean, cell.spread or 0.0
            lines.setdefault(row, []).append(point)
    lines = {row: np.array(sorted(points)).T for row, points in lines.items()}
    for row, points in lines.items():
        axes.errorbar(*points, marker="o", markersize=4, capsize=2, **styles[row])
    axes.set_xscale("log")
    axes.set_xlabel("parameters", fontsize=8.5)
    axes.set_ylabel(_metric(table), fontsize=8.5)
    if lines:
        points = np.concatenate([line.T for line in lines.values()])
        near = _near(dict(enumerate(points[:, 1])), points[:, 2], table.larger_is_better)
        _, means, spreads = points[list(near)].T
        _set_limits(axes.set_ylim, min(means - spreads), max(means + spreads))
    places = {row: (sizes[-1], means[-1]) for row, (sizes, means, _) in lines.items()}
    texts = {row: _number(table, y) for row, (_, y) in places.items()}
    columns = {column for column, _ in cells}
    lost = [
        f"{note} ({column})"
        for column in sorted(columns)
        for note in _diverged({row: cell for (c, row), cell in cells.items() if c == column})
    ]
    _label(axes, places, texts, styles, lost)


def _draw_points(table, axes, cells, styles):
    """The metric of each row with its spread and its seeds, the best row at the top."""
    rows = [row for row, cell in cells.items() if cell.scores]
    rows.sort(key=lambda row: cells[row].mean, reverse=table.larger_is_better)
    heights = {row: len(cells) - i for i, row in enumerate(rows)}
    for row, height in heights.items():
        cell, colour = cells[row], styles[row]["color"]
        seeds = list(cell.scores.values())
        axes.plot(seeds, [height] * len(seeds), "o", markersize=3, alpha=0.5, color=colour)
        ring = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "capsize": 3}
        axes.errorbar(cell.mean, height, xerr=cell.spread, color=colour, **ring)
    if rows:
        spreads = {row: cells[row].spread or 0.0 for row in rows}
        means = {row: cells[row].mean for row in rows}
        near = _near(means, spreads.values(), table.larger_is_better)
        low = min(min(*cells[r].scores.values(), means[r] - spreads[r]) for r in near)
        high = max(max(*cells[r].scores.values(), means[r] + spreads[r]) for r in near)
        _set_limits(axes.set_xlim, low, high)
    axes.set_ylim(0.4, len(cells) + 0.6)
    axes.set_yticks([])
    axes.set_xlabel(_metric(table), fontsize=8.5)
    low, high = axes.get_xlim()
    texts = {}
    for row in rows:
        beyond = "← " if cells[row].mean < low else "→ " if cells[row].mean > high else ""
        texts[row] = f"{beyond}{_number(table, cells[row].mean)}"
    _label(axes, {row: (None, y) for row, y in heights.items()}, texts, styles, _diverged(cells))


def _near(values, spreads, larger):
    """The part of the values that the picture shows: see `_FAR`. None is far beyond the best."""
    losses = {key: -value if larger else value for key, value in values.items()}
    best = min(losses.values())
    usual = max(statistics.median(losses.values()) - best, statistics.median(spreads))
    # Where half of all are equal and without a spread, there is no measure of far.
    reach = _FAR * usual or math.inf
    return {key: values[key] for key, loss in losses.items() if loss - best <= reach}


def _set_limits(set_limits, low, high):
    margin = 0.04 * (high - low) or 0.01 * abs(high) or 1.0
    set_limits(low - margin, high + margin)


def _label(axes, places, texts, styles, notes):
    """Names the rows right of the axes, each beside its end or joined to it by a thin line.

    Args:
        axes: with their limits set.
        places: for each row where it ends: x (None: no line) and y.
        texts: for each row what stands behind its name.
        styles: of the rows.
        notes: lines below all labels.
    """
    width, height = axes.get_position().size * axes.figure.get_size_inches()
    low, high = axes.get_ylim()
    wanted = {row: (y - low) / (high - low) * height for row, (_, y) in places.items()}
    order = sorted(places, key=lambda row: -wanted[row])
    inside = [min(max(wanted[row], 0.0), height) for row in order]
    spots = _apart(inside + [0.0] * len(notes), height)

    def write(spot, text, colour, end=None):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0}
        line["relpos"] = 0, 0.5  # it ends at the text, not in its middle
        axes.annotate(
            text,
            end or (1.0, spot / height),
            xycoords="axes fraction" if end is None else "data",
            xytext=(1 + 0.25 / width, spot / height),
            textcoords="axes fraction",
            arrowprops=line if end else None,
            annotation_clip=False,
            va="center",
            fontsize=8,
            color=_NOTES if colour == _FIXED else colour,
        )

    for row, spot in zip(order, spots, strict=False):
        beyond = "↓ " if wanted[row] < 0 else "↑ " if wanted[row] > height else ""
        x, y = places[row]
        end = None if beyond or x is None else (x, y)
        write(spot, f"{row}  {beyond}{texts[row]}", styles[row]["color"], end)
    for note, spot in zip(notes, spots[len(order) :], strict=True):
        write(spot, note, _NOTES)


def _apart(heights, room):
    """Falling heights, moved as little as leaves a line of text for each, between 0 and room."""
    gap = min(_LINE, room / max(1, len(heights)))
    steps = gap * np.arange(len(heights))
    # Falling by a gap from one to the next is falling at all, after a rise by a gap.
    spots = isotonic_regression(np.array(heights) + steps, increasing=False).x - steps
    floors = gap * np.arange(len(heights))[::-1]
    return np.maximum(spots, floors).tolist()


def _diverged(cells):
    """A note for each row of a panel that has diverged runs."""
    return [
        f"{row} diverged {cell.diverged}/{len(cell.runs)}"
        for row, cell in cells.items()
        if cell.diverged
    ]


def _number(table, value):
    return f"{value:.2f}" if table.unit == "%" else f"{value:.4g}"


def _unit(table):
    return f", {table.unit}" if table.unit else ""


def _metric(table):
    return f"{table.metric.replace('_', ' ')}{_unit(table)}"
