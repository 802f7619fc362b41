"""What a search found: as CSV, as Markdown, and as a picture."""

import math
import shlex
import statistics
from pathlib import Path

import numpy as np

import keras_learnact as kla
from keras_learnact import formulas
from keras_learnact.files import written
from training import command_line, outcomes, table_plot
from training.config import ImageConfig, SearchConfig

_FRONT, _TEST, _OTHERS, _NOTES = "#0072B2", "#D55E00", "#BBBBBB", "#555555"
_SHOWN = np.linspace(-4, 4, 401)

# The failure of a function whose training it was; others were not trained.
DIVERGED = "diverged"


def call(formula: str) -> str:
    """The layer of a formula, to be copied: `Expression("a*x*tanh(x)", a=1.0)`."""
    starts = [f", {name}=1.0" for name in formulas.parse(formula).constants]
    return f'Expression("{formula}"{"".join(starts)})'


def row(name: str, config: ImageConfig, candidate, accuracies: list[float | None]) -> dict:
    """A line of front.csv.

    Args:
        name: what it is called: a formula, or a known activation.
        config: how it was trained at the end.
        candidate: of the search; None for a known activation.
        accuracies: on the test set, one for each training at the end; None: it diverged.
    """
    sound = [accuracy for accuracy in accuracies if accuracy is not None]
    return {
        "name": name,
        "formula": config.activation_args.get("formula", ""),
        "complexity": candidate.complexity if candidate else "",
        "validation_accuracy": candidate.evaluation.accuracy if candidate else "",
        "test_accuracy": statistics.fmean(sound) if sound else math.nan,
        "test_accuracy_std": statistics.stdev(sound) if len(sound) > 1 else math.nan,
        "trainings": len(accuracies),
        "diverged": len(accuracies) - len(sound),
    }


def accuracy(row: dict) -> str:
    """The test accuracy of a line in percent, with its spread."""
    if row["trainings"] == row["diverged"]:
        return DIVERGED
    text = f"{100 * row['test_accuracy']:.2f} ± {100 * row['test_accuracy_std']:.2f} %"
    return text + f" ({row['diverged']} of {row['trainings']} diverged)" * bool(row["diverged"])


def write(files: Path, config: SearchConfig, candidates: list, rows: list[dict], source: str):
    """Writes a table as CSV, a page as Markdown, and a picture.

    Args:
        files: their path without ending; its folder must exist.
        config: the search.
        candidates: all functions of the search.
        rows: of the front, the simplest first, then of the known activations.
        source: where the images come from.
    """
    outcomes.write_rows(files.with_name(f"{files.name}.csv"), rows)
    with written(files.with_name(f"{files.name}.png")) as file:
        table_plot.save(_picture(config, candidates, rows), file)
    with written(files.with_name(f"{files.name}.md"), "w") as file:
        file.write(_markdown(files.name, config, candidates, rows, source))


def _markdown(name, config, candidates, rows, source):
    failures = [c.evaluation.failure for c in candidates if c.evaluation.failure]
    diverged = failures.count(DIVERGED)
    minutes = sum(candidate.evaluation.seconds for candidate in candidates) / 60
    best = [row for row in rows if row["complexity"]][-1]
    command = ["python", "-m", "training.search", *command_line.to_flags(config)]
    command += [f"--results={config.results}"] * bool(config.results)
    paragraphs = [
        f"# A search for activation functions: {config.network} on {source}",
        f"{len(candidates)} different functions in {config.generations + 1} generations of "
        f"{config.population}, each trained {_count(config.repeats, 'time')} for "
        f"{_count(config.epochs, 'epoch')}: {minutes:.0f} min in all. Of them {diverged} diverged, "
        f"and {len(failures) - diverged} were not trained: a pole or an overflow near zero, or a "
        "power too high.",
        _table(rows),
        "Above, the Pareto front: what no other function of the search is both simpler and better "
        "than. Below, activations that have names, trained alike.",
        "*Accuracy in the search* is on a part of the training set that no training of the search "
        f"saw. It is the best of {len(candidates)}, so it is too high.",
        "*Test accuracy, trained anew* is the mean ± the sample standard deviation of "
        f"{config.check_repeats} trainings of the same length with other seeds, on the whole "
        "training set. The test set had no part in the search; whoever chooses by this column "
        "makes it too high as well.",
        "The function with the best accuracy in the search, ready to use:",
        f"    {call(best['formula'])}",
        f"![Accuracy against the nodes of the formula]({name}.png)",
        "This makes it again:",
        f"    {shlex.join(command)}",
    ]
    return "\n\n".join(paragraphs) + "\n"


def _table(rows):
    lines = [
        ["function", "nodes", "accuracy in the search", "test accuracy, trained anew"],
        ["---", "--:", "--:", "--:"],
    ]
    for row in rows:
        if row["complexity"]:
            found = f"{100 * row['validation_accuracy']:.2f} %"
            lines.append([f"`{row['name']}`", str(row["complexity"]), found, accuracy(row)])
        else:
            lines.append([row["name"], "", "", accuracy(row)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _count(number, noun):
    return f"{number} {noun}" + "s" * (number != 1)


def _picture(config, candidates, rows):
    front = [row for row in rows if row["complexity"]]
    down = max(2, math.ceil(len(front) / 2))
    figure = table_plot.figure_class()(figsize=(12, 1.2 + 1.75 * down), dpi=100)
    left, right = figure.subfigures(1, 2, width_ratios=(1.15, 1))
    _draw_front(left.subplots(), config, candidates, rows, front)
    panels = right.subplots(down, 2, sharex=True, squeeze=False).ravel()
    for number, (axes, row) in enumerate(zip(panels, front, strict=False), 1):
        layer = kla.Expression(**_arguments(row["formula"]))
        axes.plot(_SHOWN, layer.curve(_SHOWN)[0], color=_FRONT)
        axes.set_ylim(*np.clip(axes.get_ylim(), -4, 4))
        axes.axhline(0, color=_OTHERS, linewidth=0.6, zorder=0)
        axes.axvline(0, color=_OTHERS, linewidth=0.6, zorder=0)
        axes.set_title(f"{number}  {row['formula']}", fontsize=8, loc="left")
        axes.tick_params(labelsize=7, length=2)
    for axes in panels[len(front) :]:
        axes.set_axis_off()
    left.subplots_adjust(left=0.11, right=0.97, top=0.93, bottom=0.12)
    right.subplots_adjust(left=0.05, right=0.97, top=0.93, bottom=0.08, hspace=0.45)
    return figure


def _arguments(formula):
    return {"formula": formula, **dict.fromkeys(formulas.parse(formula).constants, 1.0)}


def _draw_front(axes, config, candidates, rows, front):
    sound = [candidate for candidate in candidates if not candidate.evaluation.failure]
    axes.plot(
        [candidate.complexity for candidate in sound],
        [100 * candidate.evaluation.accuracy for candidate in sound],
        ".",
        color=_OTHERS,
        label="functions of the search",
    )
    nodes = [row["complexity"] for row in front]
    found = [100 * row["validation_accuracy"] for row in front]
    end = max(candidate.complexity for candidate in sound)
    axes.step([*nodes, end], [*found, found[-1]], where="post", color=_FRONT, linewidth=1)
    axes.plot(nodes, found, "o", color=_FRONT, label="Pareto front, in the search")
    for number, place in enumerate(zip(nodes, found, strict=True), 1):
        axes.annotate(
            str(number), place, (-7, 5), textcoords="offset points", fontsize=9, color=_FRONT
        )
    axes.errorbar(
        [n + 0.15 for n in nodes],
        [100 * row["test_accuracy"] for row in front],
        [100 * row["test_accuracy_std"] for row in front],
        fmt="D",
        markersize=4,
        capsize=2,
        color=_TEST,
        label="the same, trained anew, on the test set (± deviation)",
    )
    for place, row in enumerate(row for row in rows if not row["complexity"]):
        level = 100 * row["test_accuracy"]
        if math.isfinite(level):
            axes.axhline(level, color=_NOTES, linewidth=0.7, linestyle=(0, (5, 3)), zorder=0)
            axes.annotate(
                f"{row['name']} (test)",
                (1 - 0.17 * place, level),  # beside each other: they may be equally good
                (-2, 2),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                fontsize=7.5,
                color=_NOTES,
            )
    middle = statistics.median(100 * candidate.evaluation.accuracy for candidate in sound)
    tops = [100 * candidate.evaluation.accuracy for candidate in sound] + [
        100 * (row["test_accuracy"] + row["test_accuracy_std"])
        for row in rows
        if math.isfinite(row["test_accuracy_std"])
    ]
    lows = [100 * row["test_accuracy"] for row in rows if math.isfinite(row["test_accuracy"])]
    # The worst functions would press all others into one line.
    low, high = min([middle, *lows, *found]), max(tops)
    axes.set_ylim(low - 0.15 * (high - low) - 0.1, high + 0.1 * (high - low) + 0.1)
    axes.set_xlim(0.5, end + 0.5)
    axes.set_xlabel("nodes of the formula", fontsize=9)
    axes.set_ylabel("accuracy, %", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    hidden = sum(100 * c.evaluation.accuracy < axes.get_ylim()[0] for c in sound)
    axes.set_title(
        f"{config.network} on {config.dataset}: {len(candidates)} functions, "
        f"{len(candidates) - len(sound)} of them failed, {hidden} are worse than shown",
        fontsize=9.5,
    )
    axes.legend(fontsize=7.5, loc="lower right", framealpha=0.9)
