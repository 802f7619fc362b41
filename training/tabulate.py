"""Writes a table of a paper as Markdown and as a picture, from what its runs gave.

The same outcomes give the same text, byte for byte.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from keras_learnact.files import written
from training import learned, significance, table_plot
from training.cells import Cells, collect, decimals, rank, ranked, rows_of, seconds_per_epoch
from training.outcomes import Outcome
from training.significance import Ranking
from training.table import Column, Table

NOT_RUN = "–"
# Seconds of a row over those of this activation show what a row costs.
BASELINE = "relu"


def write(table: Table, name: str, outcomes: list[Outcome], folder: Path) -> None:
    """Writes `<name>.md` and `<name>.png`, and `<name>_ranks.png` where ranks can be told apart.

    Args:
        table: what the outcomes belong to.
        name: of the table.
        outcomes: finished runs, in any order; runs that are missing show as such.
        folder: where the files go; it must exist.

    Errors: a ValueError for outcomes that the table does not have, that are there twice, or that
    have no such metric; a `UserError` for a missing package, see `assert_packages`.
    """
    found = collect(table, outcomes)
    ranking = rank(table, found)
    picture = table_plot.results(table, found)
    with written(folder / f"{name}.png") as file:
        table_plot.save(picture, file)
    ranks = folder / f"{name}_ranks.png"
    if ranking is not None and ranking.p_values is not None:
        with written(ranks) as file:
            table_plot.save(table_plot.ranks(ranking), file)
    else:
        ranks.unlink(missing_ok=True)  # of outcomes that were there before
    # Of `training.learned` and `training.fits`.
    pictures = [p for p in PICTURES if (folder / f"{name}_{p}.png").exists()]
    with written(folder / f"{name}.md", "w") as file:
        file.write(markdown(table, name, found, ranking, pictures))


def assert_packages() -> None:
    """Errors: a `UserError` if a package is missing that `write` needs; ask before training."""
    significance.posthocs()
    table_plot.figure_class()


def markdown(
    table: Table, name: str, found: Cells, ranking: Ranking | None, pictures: Sequence[str] = ()
) -> str:
    """The text of `<name>.md`.

    Args:
        table, name: as for `write`.
        found: the outcomes of the table, from `training.cells.collect`.
        ranking: of them, from `training.cells.rank`.
        pictures: which of `PICTURES` there are.
    """
    parts = [
        f"# {table.title}",
        table.claim,
        f"Source: {table.source}.",
        table.remarks,
        _results(table, found),
        _legend(table, found),
        f"![{_picture_text(table)}]({name}.png)",
        *(part for picture in pictures for part in PICTURES[picture](table, name)),
        "## What the rows cost",
        _costs(table, found),
        "## Are the differences more than luck?",
        *_over_seeds(table, found),
        *_over_columns(table, found, ranking, name),
        "## How it was made",
        _making(table, name, found),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(header: list, lines: list[list]) -> str:
    """A table in Markdown, with all but its first column to the right."""
    ruler = ["---", *["---:"] * (len(header) - 1)]
    rows = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *lines)]
    rows.insert(1, ruler)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# The results


def _functions(table, name):
    return [
        f"## What {table.learned} learned",
        f"![The functions of {table.learned}]({name}_functions.png)",
        "Of each experiment the first seed; above each picture the activation, from the input of "
        f"the network to its output, of large networks {learned.PICTURED} of them.",
    ]


def _fits(table, name):
    return [
        "## What the networks made of the data",
        f"![The data, and what the network of each row makes of them]({name}_fits.png)",
        "Of each row the first seed, and of its cross-validation the first network, which has not "
        "seen the points of one fold; above each picture the metric of all folds. Of one input the "
        "data are grey; of two, colours are values, the same in all pictures.",
    ]


# Beside the picture of the table, by what their files are called.
PICTURES = {"fits": _fits, "functions": _functions}


def _results(table, found):
    columns = [_result_columns(table, found, column) for column in table.columns]
    header = ["activation", *(title for titles, _ in columns for title in titles)]
    lines = [
        [row.label, *(text for _, texts in columns for text in texts[row.label])]
        for row in table.rows
    ]
    return markdown_table(header, lines)


def _result_columns(table, found, column: Column):
    """The headings of an experiment, and for each row its texts below them."""
    digits = decimals(table, found, column.label)
    here = {row.label: found.get((column.label, row.label)) for row in table.rows}
    better = max if table.larger_is_better else min

    def printed(value):
        return f"{value:.{digits}f}"

    # What is equal as it is printed wins together. A row that is alone has won against nobody.
    contested = len(rows_of(table, found, column.label)) > 1
    ordered = ranked(table, found, column.label) if contested else []
    first = printed(here[ordered[0]].mean) if ordered else None
    scores = {row: cell.scores.values() for row, cell in here.items() if cell and cell.scores}
    bests = {row: better(values) for row, values in scores.items()}
    first_best = printed(better(bests.values())) if contested and bests else None

    titles, texts = [column.label], {}
    several = len(table.seeds) > 1
    for row, cell in here.items():
        if cell is None:
            texts[row] = [NOT_RUN] * (1 + several)
            continue
        if not cell.scores:
            texts[row] = [f"diverged {cell.diverged}/{len(cell.runs)}"] + [""] * several
            continue
        text = printed(cell.mean)
        if cell.spread is not None:
            text += f" ± {printed(cell.spread)}"
        if row in ordered and printed(cell.mean) == first:
            text = f"**{text}**"
        remarks = []
        if len(cell.runs) != len(table.seeds):
            remarks.append(f"{len(cell.runs)} of {len(table.seeds)} seeds")
        if cell.diverged:
            remarks.append(f"{cell.diverged} of {len(cell.runs)} diverged")
        texts[row] = [f"{text} ({'; '.join(remarks)})" if remarks else text]
        if several:
            best = printed(bests[row])
            texts[row].append(f"**{best}**" if best == first_best else best)
    if several:
        titles.append("best")
    for metric in table.further:
        titles.append(_words(metric))
        for row, cell in here.items():
            texts[row].append(_further(table, metric, cell, digits))
    if column.paper:
        titles.append("published")
        texts = {row: [*text, column.paper.get(row, "")] for row, text in texts.items()}
    return titles, texts


def _further(table, metric, cell, digits):
    """The mean of another metric over the runs that did not diverge."""
    if cell is None or not cell.scores:
        return NOT_RUN if cell is None else ""
    factor = 100 if table.unit == "%" else 1
    values = [run.metrics[metric] for run in cell.runs if run.seed in cell.scores]
    return f"{factor * statistics.fmean(values):.{digits}f}"


def _legend(table, found):
    unit = f" in {table.unit}" if table.unit else ""
    better = "larger is better" if table.larger_is_better else "smaller is better"
    words = [f"The {_words(table.metric)}{unit}; {better}."]
    if len(table.seeds) > 1:
        words.append(
            f"Mean ± sample standard deviation over {len(table.seeds)} seeds "
            f"({_listed(table.seeds)}), and the best of them."
        )
    else:
        words.append(f"One seed ({table.seeds[0]}), so nothing is known of the spread.")
    words.append("**Bold** is the best of a column, with all that are equal as printed.")
    if any(cell.diverged for cell in found.values()):
        words.append(
            "Diverged: the loss was no longer a finite number; such runs are left out of the mean, "
            "and a row that has one does not compete for the best mean."
        )
    missing = len(table.runs()) - sum(len(cell.runs) for cell in found.values())
    if missing:
        words.append(f"{NOT_RUN}: not run. {missing} of {len(table.runs())} runs are missing.")
    elif any(column.without for column in table.columns):
        words.append(f"{NOT_RUN}: not part of this experiment.")
    return " ".join(words)


def _picture_text(table):
    if table.against == "parameters":
        return f"{_words(table.metric)} over the number of parameters"
    return "Test accuracy by epoch" if table.unit == "%" else f"{_words(table.metric)} of each row"


# What they cost


def _costs(table, found):
    header, columns = ["activation"], []
    for column in table.columns:
        here = {row.label: found.get((column.label, row.label)) for row in table.rows}
        seconds = {row: cell.seconds_per_epoch for row, cell in here.items() if cell}
        baseline = _baseline(table, seconds)
        header += [f"{column.label}: parameters", f"time per epoch{' / ReLU' * bool(baseline)}"]
        columns.append((here, seconds, baseline))
    lines = []
    for row in table.rows:
        line = [row.label]
        for here, seconds, baseline in columns:
            if here[row.label] is None:
                line += [NOT_RUN, NOT_RUN]
                continue
            line.append(f"{here[row.label].runs[0].metrics['parameters']:,}")
            taken = f"{seconds[row.label]:.3g} s"
            if baseline is None:
                line.append(taken)
            elif baseline == row.label:
                line.append(f"1 ({taken})")
            else:
                line.append(f"{seconds[row.label] / seconds[baseline]:.2f}")
        lines.append(line)
    note = (
        "Time is that of training, the median over epochs and seeds; seeds that were trained in "
        "one step share it evenly. Runs may have shared a machine, so it is no benchmark: those "
        "are in benchmarks/results."
    )
    return f"{markdown_table(header, lines)}\n\n{note}"


def _baseline(table, seconds):
    """The label of the row that is the baseline as it is; None if it has not run."""
    for row in table.rows:
        if row.activation == BASELINE and not row.arguments and seconds.get(row.label):
            return row.label
    return None


# What significance says


def _over_seeds(table, found):
    columns = [column.label for column in table.columns if ranked(table, found, column.label)]
    tests = {column: _gaps(table, found, column) for column in columns}
    pairs = {gap.pairs for gaps in tests.values() for gap in gaps if gap.pairs > 1}
    if not pairs:
        return ["Nothing is tested: that takes two rows with two seeds in common."]
    count = max(len(gaps) + 1 for gaps in tests.values())
    lines = [f"- {column}: {_verdict(table, found, column, tests)}" for column in tests]
    lines += [
        f"- {column.label}: every row has a diverged run."
        for column in table.columns
        if column.label not in tests and rows_of(table, found, column.label)
    ]
    return [_test_in_words(sorted(pairs), count), "\n".join(lines), _gap_table(table, found, tests)]


def _gaps(table, found, column):
    scores = {row: found[column, row].scores for row in rows_of(table, found, column)}
    best = ranked(table, found, column)[0]
    return significance.gaps(scores, best, table.larger_is_better)


def _test_in_words(pairs, count):
    most, tests = pairs[-1], count * (count - 1) // 2
    text = (
        f"Over the seeds ({_listed(pairs, 'or')} pairs): every row against the one with the best "
        "mean of its column, by a paired t test, two-sided, at 5 %. p is corrected by Holm for all "
        f"pairs of rows ({tests}), because the best row is chosen by the numbers that are tested; "
        "the 95 % intervals are of each difference by itself. What is not told apart need not be "
        f"equal: with {most} pairs the largest difference must be "
        f"{significance.least_gap(most, tests):.1f} times the standard deviation of its "
        "differences to be found. The test supposes that the differences are normally "
        "distributed, which so few cannot show."
    )
    if most < significance.WILCOXON_PAIRS:
        text += (
            " The Wilcoxon signed-rank test supposes less, but cannot reach 5 % here: its smallest "
            f"p with {most} pairs is {2 / 2**most:.3g}."
        )
    return text


def _verdict(table, found, column, tests):
    gaps = tests[column]
    groups = (
        ("Significantly worse", lambda gap: gap.p is not None and gap.p < significance.LEVEL),
        ("Not told apart from it", lambda gap: gap.p is not None and gap.p >= significance.LEVEL),
        ("Fewer than 2 seeds in common with it", lambda gap: gap.pairs < 2),
        ("The same difference in all seeds", lambda gap: gap.pairs > 1 and gap.p is None),
    )
    text = f"**{ranked(table, found, column)[0]}** has the best mean."
    for words, belongs in groups:
        members = [gap.row for gap in gaps if belongs(gap)]
        if members:
            text += f" {words}: {_listed(members)}."
    here = {row: found[column, row] for row in rows_of(table, found, column)}
    flattered = [row for row, cell in here.items() if cell.diverged and cell.scores]
    if flattered:
        text += f" Diverged runs are left out here, which flatters {_listed(flattered)}."
    return text


def _gap_table(table, found, tests):
    header, columns = ["behind the best by"], []
    for column, gaps in tests.items():
        header += [column, "p"]
        digits = decimals(table, found, column)
        texts = {gap.row: _gap_texts(gap, digits, len(table.seeds)) for gap in gaps}
        columns.append((column, texts))
    lines = []
    for row in table.rows:
        line = [row.label]
        for column, texts in columns:
            alone = "best" if (column, row.label) in found else NOT_RUN
            line += texts.get(row.label, [alone, ""])
        lines.append(line)
    return markdown_table(header, lines)


def _gap_texts(gap, digits, wanted_pairs):
    def printed(value):
        return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no "-0.00"

    if gap.mean is None:
        return [NOT_RUN, ""]
    text = printed(gap.mean)
    if gap.p is not None:
        text += f" [{printed(gap.low)}, {printed(gap.high)}]"
    if gap.pairs != wanted_pairs:
        text += f" ({gap.pairs} pair{'s' * (gap.pairs > 1)})"
    return [text, "" if gap.p is None else _p(gap.p)]


def _over_columns(table, found, ranking, name):
    if len(table.columns) < 2:
        return []
    if ranking is None:
        return [
            "Over the experiments nothing is compared: the Friedman test takes at least 3 rows "
            "that have run in 2 columns."
        ]
    n, k = len(ranking.columns), len(ranking.mean_ranks)
    text = (
        f"Over the experiments: {k} rows are ranked by their mean in each of {n} columns, which "
        "are taken as independent experiments; a row with a diverged run ranks last. "
    )
    if ranking.left_out:
        text += f"Left out for want of runs: {_listed(ranking.left_out)}. "
    text += f"p of the Friedman test, by permutation: {_p(ranking.p)}; "
    if ranking.p >= significance.LEVEL:
        text += "ranks so different may be luck."
    else:
        text += "the columns agree on the ranks more than luck does."
    difference = f"{ranking.critical_difference:.2f}"
    if ranking.has_too_few_columns:
        text += (
            f" {n} columns are too few to say which rows differ: by Nemenyi's test two mean ranks "
            f"would have to differ by {difference}, and the first of {k} differs from the last by "
            f"{k - 1} at most."
        )
    elif ranking.p_values is not None:
        text += f" By Nemenyi's test rows differ whose mean ranks differ by {difference}."
    else:
        text += " So no two rows are tested against each other."
    parts = [text, _rank_table(ranking)]
    if ranking.p_values is not None:
        parts.append(f"![Mean ranks; a bar joins what is not told apart]({name}_ranks.png)")
    return parts


def _rank_table(ranking):
    header, tested = ["activation", "mean rank"], ranking.p_values is not None
    if tested:
        header.append("p against the first")
    lines = []
    for position, (row, mean) in enumerate(ranking.mean_ranks.items()):
        line = [row, f"{mean:.2f}"]
        if tested:
            line.append(_p(float(ranking.p_values.iloc[0, position])) if position else "")
        lines.append(line)
    return markdown_table(header, lines)


# How it was made


def _making(table, name, found):
    runs = [run for cell in found.values() for run in cell.runs]
    lines = [
        f"Repeat it: `python -m training.sweep --table={name}`. The command of each run is in "
        f"[{name}.csv]({name}.csv)" + (f", the first is `{runs[0].command}`." if runs else "."),
        *(_recipe(column) for column in table.columns),
    ]
    for text, count in _counted(_surroundings(run) for run in runs):
        lines.append(f"{'' if count == len(runs) else f'{count} of {len(runs)} runs: '}{text}.")
    paths = {}
    for (_, row), cell in found.items():
        for run in cell.runs:
            paths.setdefault(run.facts.get("activation_path", "unknown"), {})[row] = None
    lines.append(
        "Path of the activations: "
        + "; ".join(f"{path} ({', '.join(rows)})" for path, rows in sorted(paths.items()))
        + "."
    )
    seconds = sum(_training_seconds(table, run) for run in runs)
    lines.append(
        f"{len(runs)} runs with {_duration(seconds)} of training, added up; tests, compilation "
        "of programs and reading of data come on top."
    )
    return "\n".join(f"- {line}" for line in lines)


def _recipe(column):
    config = column.config
    text = (
        f"{column.label}: data set {config.dataset}, network {config.network}, {config.epochs} "
        f"epochs, batches of {config.batch_size}, {config.optimizer} {config.learning_rate:g}"
    )
    for row, fields in column.overrides.items():
        text += f"; {row} with {_listed(f'{key}={value}' for key, value in fields.items())}"
    return f"{text}."


def _surroundings(run):
    versions = run.facts.get("versions", {})
    text = f"{run.facts.get('backend', 'unknown')} backend"
    text += "".join(f", {package} {version}" for package, version in versions.items())
    together = run.facts.get("trained_together")
    return f"{text}, {len(together)} seeds in one step" if together else text


def _counted(texts):
    counts = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    return counts.items()


def _training_seconds(table, run):
    (column,) = (column for column in table.columns if column.label == run.column)
    epochs = len(run.curve) or column.config.epochs
    return seconds_per_epoch(run) * epochs * getattr(column.config, "folds", 1)


# Words


def _p(p):
    return "< 0.001" if p < 0.001 else "1" if p > 0.9995 else f"{p:.3f}"


def _listed(words, last="and"):
    *words, end = map(str, words)
    return f"{', '.join(words)} {last} {end}" if words else end


def _words(metric):
    return metric.replace("_", " ")


def _duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
