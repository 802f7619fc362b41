"""Whether the rows of a table differ by more than luck: over the seeds, and over the experiments.

`gaps` compares the best row of one experiment with every other one, seed by seed. `rank` compares
all rows over several experiments: the Friedman test with the post-hoc test of Nemenyi, as Demšar
recommends (Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006).
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from training.config import UserError

# What is called significant, and 1 - the share of the intervals.
LEVEL = 0.05

# The Wilcoxon signed-rank test of n pairs has 2^n equally likely outcomes, so p >= 2 / 2^n.
WILCOXON_PAIRS = math.ceil(1 - math.log2(LEVEL))

# Friedman's p is exact for so many orders of the ranks, and beyond that an estimate from so many.
_ORDERS = 9999


class Gap(NamedTuple):
    """By how much a row is worse than the best one.

    Args:
        row: its label.
        pairs: the number of seeds that both have.
        mean: of the differences, seed by seed, in the unit of the metric; positive is worse.
            None without a pair.
        low, high: 95 % confidence interval of the mean by Student's t, of this gap by itself. None
            where there are fewer than 2 pairs, or differences without any spread.
        p: of the paired t test, two-sided, corrected by Holm for all pairs of rows; None as above.
    """

    row: str
    pairs: int
    mean: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def gaps(
    scores: dict[str, dict[int, float]], best: str, larger_is_better: bool = True
) -> list[Gap]:
    """The paired t test of the best row against each other row, over their common seeds.

    The best row is chosen by the numbers that are tested, so Holm's correction counts every pair
    of rows, not only those with the best: in 2,000 draws of 15 equal rows with 5 seeds one of the
    latter alone finds a difference in 12 of 100 tables, the former in 2.

    Args:
        scores: for each row its metric for each seed; finite numbers.
        best: the row that the others are compared with.
        larger_is_better: which direction is worse.

    Returns:
        One `Gap` for each other row, in the order of `scores`.
    """
    pairs = list(itertools.combinations(scores, 2))
    tests = {pair: _paired(*(scores[row] for row in pair)) for pair in pairs}
    # What cannot be tested counts as a test that found nothing.
    raw = [1.0 if tests[pair].p is None else tests[pair].p for pair in pairs]
    corrected = dict(zip(pairs, holm(raw), strict=True))
    found = []
    for pair in pairs:
        if best not in pair:
            continue
        test = tests[pair]._replace(row=pair[0] if pair[1] == best else pair[1])
        if test.p is not None:
            test = test._replace(p=corrected[pair])
        # `mean` is first minus second: positive is worse if that is the loss of the second row.
        found.append(test if (pair[0] == best) == larger_is_better else _negated(test))
    return sorted(found, key=lambda gap: list(scores).index(gap.row))


def holm(p_values) -> list[float]:
    """Holm's step-down correction: the smallest of m times m, the next times m - 1, …"""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        corrected[index] = float(min(1.0, largest))
    return corrected


def least_gap(pairs: int, tests: int) -> float:
    """The smallest mean that can be significant, in standard deviations of the differences.

    Args:
        pairs: of values, at least 2.
        tests: how many there are, of which this one has the smallest p.
    """
    return float(stats.t.isf(LEVEL / 2 / tests, pairs - 1) / math.sqrt(pairs))


class Ranking(NamedTuple):
    """How the rows rank over several experiments: 1 is the best rank.

    Args:
        mean_ranks: for each row, from best to worst.
        columns: the labels of the experiments that were compared.
        p: of the Friedman test.
        critical_difference: by so much two mean ranks must differ to be told apart by Nemenyi's
            test at 5 %.
        p_values: Nemenyi's, a DataFrame rows × rows; None where the Friedman test finds no
            difference, or the number of columns is too small for any.
        left_out: the rows and columns that are missing because of cells without a run.
    """

    mean_ranks: dict[str, float]
    columns: list[str]
    p: float
    critical_difference: float
    p_values: object
    left_out: list[str]

    @property
    def has_too_few_columns(self) -> bool:
        """Whether even rows that are first and last everywhere could not be told apart."""
        return self.critical_difference > len(self.mean_ranks) - 1


def rank(scores: dict[str, dict[str, float]], larger_is_better: bool = True) -> Ranking | None:
    """The Friedman test over experiments, and Nemenyi's post-hoc test where it finds something.

    Args:
        scores: for each experiment (a block) the metric of each row (a treatment). NaN is a
            diverged run: it ranks last. A row that an experiment lacks was not run there: either
            the experiments or the rows with such gaps are left out, whichever leaves more.
        larger_is_better: which rank is 1.

    Returns:
        The `Ranking`; None where there are fewer than 2 experiments or 3 rows to compare.

    Errors: a `UserError` where a post-hoc test is due and scikit-posthocs is not installed.
    """
    rows = list(dict.fromkeys(row for column in scores.values() for row in column))
    columns = [column for column in scores if scores[column]]
    chosen_columns, chosen_rows = _complete(scores, columns, rows)
    n, k = len(chosen_columns), len(chosen_rows)
    if n < 2 or k < 3:
        return None
    values = np.array([[scores[c][r] for r in chosen_rows] for c in chosen_columns], float)
    losses = np.where(np.isnan(values), np.inf, -values if larger_is_better else values)
    ranks = stats.rankdata(losses, axis=1)
    mean_ranks = ranks.mean(0)
    order = np.argsort(mean_ranks, kind="stable")
    ranking = Ranking(
        mean_ranks={chosen_rows[i]: float(mean_ranks[i]) for i in order},
        columns=chosen_columns,
        p=_friedman(ranks),
        critical_difference=critical_difference(k, n),
        p_values=None,
        left_out=[label for label in [*scores, *rows] if label not in chosen_columns + chosen_rows],
    )
    if ranking.p >= LEVEL or ranking.has_too_few_columns:
        return ranking
    p_values = posthocs().posthoc_nemenyi_friedman(ranks[:, order])
    labels = list(ranking.mean_ranks)
    return ranking._replace(p_values=p_values.set_axis(labels, axis=0).set_axis(labels, axis=1))


def critical_difference(rows: int, columns: int) -> float:
    """Nemenyi's: two mean ranks that differ by more are told apart at 5 % (Demšar 2006, Eq. 4)."""
    q = stats.studentized_range.ppf(1 - LEVEL, rows, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(rows * (rows + 1) / (6 * columns)))


def posthocs():
    """The package scikit_posthocs. Errors: a `UserError` if it is not installed."""
    try:
        import scikit_posthocs
    except ImportError as error:
        raise UserError(
            "The comparison of activations over several experiments needs scikit-posthocs, which "
            "is not installed. Get it with: pip install 'keras_learnact[training]'"
        ) from error
    return scikit_posthocs


def _paired(first, second):
    """The test of two rows as a `Gap` without a name; its mean is first minus second."""
    seeds = [seed for seed in first if seed in second]
    a, b = (np.array([row[seed] for seed in seeds], float) for row in (first, second))
    if not seeds:
        return Gap("", 0, None)
    gap = Gap("", len(seeds), float(np.mean(a - b)))
    # Metrics are float32 numbers, so equal differences may differ by their rounding.
    rounding = 4 * np.finfo("float32").eps * max(abs(a).max(), abs(b).max())
    if len(seeds) < 2 or np.ptp(a - b) <= rounding:
        return gap
    test = stats.ttest_rel(a, b)
    low, high = test.confidence_interval(1 - LEVEL)
    return gap._replace(low=float(low), high=float(high), p=float(test.pvalue))


def _negated(gap):
    if gap.mean is not None:
        gap = gap._replace(mean=-gap.mean)
    return gap if gap.p is None else gap._replace(low=-gap.high, high=-gap.low)


def _complete(scores, columns, rows):
    """The columns and rows of a part without gaps."""
    whole_columns = [c for c in columns if len(scores[c]) == len(rows)]
    whole_rows = [r for r in rows if all(r in scores[c] for c in columns)]
    if len(whole_columns) * len(rows) > len(columns) * len(whole_rows):
        return whole_columns, rows
    return columns, whole_rows


def _friedman(ranks):
    """p of the Friedman test: how often independent orders of each block agree as much.

    By permutation and not by the chi-squared distribution, which holds for more than 10 blocks
    only; papers have two to four. For given ranks Friedman's statistic grows with the sum of
    squares of the treatments' rank sums, with ties too.
    """
    test = stats.permutation_test(
        list(ranks),
        lambda *blocks, axis: (sum(blocks) ** 2).sum(axis),
        permutation_type="pairings",
        alternative="greater",
        vectorized=True,
        n_resamples=_ORDERS,
        random_state=0,  # the same table gives the same p
    )
    return float(test.pvalue)
