import math
import sys

import numpy as np
import pytest
from scipy import stats

from training import significance
from training.config import UserError

pytestmark = pytest.mark.once


def seeds(*values):
    return dict(enumerate(values))


def test_the_paired_t_test_of_the_differences_2_1_3():
    scores = {"a": seeds(3.0, 4.0, 5.0), "b": seeds(1.0, 3.0, 2.0)}
    (gap,) = significance.gaps(scores, "a")
    assert (gap.row, gap.pairs, gap.mean) == ("b", 3, 2.0)
    # t = 2 / (1 / √3), and with 2 degrees of freedom p = 1 - t / √(t² + 2).
    assert gap.p == pytest.approx(1 - math.sqrt(12 / 14), rel=1e-12)
    # 4.302653 is the 97.5 % quantile of Student's t with 2 degrees of freedom.
    assert gap.low == pytest.approx(2 - 4.302653 / math.sqrt(3), rel=1e-6)
    assert gap.high == pytest.approx(2 + 4.302653 / math.sqrt(3), rel=1e-6)


def test_a_positive_gap_is_worse_in_both_directions():
    errors = {"worse": seeds(3.0, 4.0, 5.0), "best": seeds(1.0, 3.0, 2.0)}
    (gap,) = significance.gaps(errors, "best", larger_is_better=False)
    assert gap.mean == 2.0
    assert gap.low < 2 < gap.high
    turned = {"best": errors["best"], "worse": errors["worse"]}
    assert significance.gaps(turned, "best", larger_is_better=False) == [gap]


def test_holm_multiplies_the_smallest_by_their_number_and_the_next_by_one_less():
    assert significance.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]
    assert significance.holm([]) == []


def test_the_correction_counts_the_pairs_without_the_best_row_too():
    scores = {
        "a": seeds(3.0, 4.0, 5.0),
        "b": seeds(1.0, 3.0, 2.0),  # differences 2, 1, 3: p = 0.074
        "c": seeds(1.0, 2.9, 2.2),  # 2, 1.1, 2.8
    }
    raw = [stats.ttest_rel(*pair).pvalue for pair in map(values_of(scores), ("ab", "ac", "bc"))]
    by_row = {gap.row: gap.p for gap in significance.gaps(scores, "a")}
    corrected = significance.holm(raw)
    assert by_row == pytest.approx({"b": corrected[0], "c": corrected[1]})
    assert by_row["c"] == pytest.approx(3 * raw[1])


def values_of(scores):
    return lambda pair: [list(scores[row].values()) for row in pair]


def test_equal_rows_are_rarely_told_apart_though_the_best_is_chosen_afterwards():
    random, wrong = np.random.default_rng(0), 0
    for _ in range(100):
        scores = {row: seeds(*random.normal(size=5)) for row in "abcdef"}
        best = max(scores, key=lambda row: sum(scores[row].values()))
        wrong += any(gap.p < 0.05 for gap in significance.gaps(scores, best))
    # 5 % are what is allowed. Holm's correction for the five pairs with the best row alone finds a
    # difference in 8 of these tables.
    assert wrong <= 5


def test_only_seeds_that_both_rows_have_are_pairs():
    scores = {"a": {0: 5.0, 1: 6.0, 2: 7.0}, "b": {1: 5.0, 2: 7.5, 3: 9.0}, "c": {4: 1.0}}
    b, c = significance.gaps(scores, "a")
    assert (b.pairs, b.mean) == (2, 0.25)
    assert (c.pairs, c.mean, c.p) == (0, None, None)


def test_one_pair_has_a_difference_and_no_test():
    (gap,) = significance.gaps({"a": seeds(2.0), "b": seeds(1.5)}, "a")
    assert gap == significance.Gap("b", 1, 0.5)


@pytest.mark.parametrize("difference", [0.0, 0.25])
def test_the_same_difference_in_all_seeds_is_not_tested(difference):
    # Numbers of float32, as Keras' metrics are: their differences are equal up to rounding.
    first = [float(np.float32(value)) for value in (0.91, 0.92, 0.93)]
    second = [float(np.float32(value - difference)) for value in (0.91, 0.92, 0.93)]
    (gap,) = significance.gaps({"a": seeds(*first), "b": seeds(*second)}, "a")
    assert gap.mean == pytest.approx(difference, abs=1e-6)  # the rounding of float32 near 1
    assert (gap.pairs, gap.low, gap.high, gap.p) == (3, None, None, None)


def test_the_rank_test_of_wilcoxon_cannot_reach_5_percent_with_fewer_pairs_than_it_says():
    fewest = significance.WILCOXON_PAIRS
    assert stats.wilcoxon(range(1, fewest)).pvalue > 0.05
    assert stats.wilcoxon(range(1, fewest + 1)).pvalue < 0.05


def test_the_least_gap_is_just_significant():
    differences = np.array([-1.0, 0.0, 1.0])  # their standard deviation is 1
    just = differences + significance.least_gap(pairs=3, tests=10)
    assert stats.ttest_1samp(just, 0).pvalue == pytest.approx(0.05 / 10)


# Table 6 of Demšar 2006: areas under the curve of four classifiers on 14 data sets. The 13th has
# 0.975 twice in print; the paper's mean ranks come out where the first is the larger one.
DEMSAR = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.9751 0.975
0.957 0.978 0.946 0.970
"""


def blocks(text, rows):
    lines = [line.split() for line in text.strip().splitlines()]
    return {f"d{i}": dict(zip(rows, map(float, line), strict=True)) for i, line in enumerate(lines)}


def test_the_example_of_demsar():
    scores = blocks(DEMSAR, ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"])
    ranking = significance.rank(scores)
    published = {"C4.5+m+cf": 1.964, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5": 3.143}
    assert ranking.mean_ranks == pytest.approx(published, abs=5e-4)  # as printed
    assert list(ranking.mean_ranks) == list(published)  # the best first
    assert ranking.critical_difference == pytest.approx(1.25, abs=5e-3)  # as printed
    # SciPy's p supposes a distribution to which 14 blocks of 4 come near, ours has a standard error
    # of 0.001 from 9,999 orders.
    _, p = stats.friedmanchisquare(*np.array([list(row.values()) for row in scores.values()]).T)
    assert ranking.p == pytest.approx(p, abs=0.01)
    # The largest difference of the ranks is 1.18, below 1.25.
    assert ranking.p_values.to_numpy().min() > 0.05


def test_the_example_of_scikit_posthocs():
    text = "31 27 24\n31 28 31\n45 29 46\n21 18 48\n42 36 46\n32 17 40"
    ranking = significance.rank(blocks(text, "abc"))
    assert list(ranking.mean_ranks) == ["c", "a", "b"]
    p_values = ranking.p_values
    assert p_values.loc["a", "b"] == pytest.approx(0.145535, abs=1e-6)
    assert p_values.loc["b", "c"] == pytest.approx(0.037610, abs=1e-6)


def test_three_experiments_that_agree_on_three_rows_have_6_of_216_orders():
    scores = {column: {"a": 3.0, "b": 2.0, "c": 1.0} for column in "xyz"}
    ranking = significance.rank(scores)
    assert ranking.p == pytest.approx(6 / 216)
    assert ranking.mean_ranks == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert not ranking.has_too_few_columns
    assert ranking.p_values.loc["a", "c"] < 0.05 < ranking.p_values.loc["a", "b"]


def test_smaller_is_better_turns_the_ranks():
    scores = {column: {"a": 3.0, "b": 2.0, "c": 1.0} for column in "xy"}
    assert list(significance.rank(scores, larger_is_better=False).mean_ranks) == ["c", "b", "a"]


def test_equal_rows_share_their_ranks_and_diverged_ones_are_last():
    scores = {
        "x": {"a": 1.0, "b": 1.0, "c": math.nan, "d": 0.5},
        "y": {"a": math.nan, "b": 2.0, "c": math.nan, "d": 3.0},
    }
    assert significance.rank(scores).mean_ranks == {"b": 1.75, "d": 2.0, "a": 2.5, "c": 3.75}


def test_two_experiments_are_too_few_to_tell_which_rows_differ():
    scores = {column: {"a": 3.0, "b": 2.0, "c": 1.0, "d": 0.0} for column in "xy"}
    ranking = significance.rank(scores)
    # 2.569 √(4 · 5 / (6 · 2)) = 3.32, and the first of 4 is 3 before the last.
    assert ranking.critical_difference == pytest.approx(3.32, abs=5e-3)
    assert ranking.has_too_few_columns
    assert ranking.p_values is None


def test_ranks_that_may_be_luck_have_no_post_hoc_test():
    scores = {
        str(i): dict(zip("abc", order, strict=True))
        for i, order in enumerate([(1, 2, 3), (2, 3, 1), (3, 1, 2)])
    }
    ranking = significance.rank(scores)
    assert ranking.p == 1.0
    assert ranking.p_values is None


def test_of_cells_without_runs_the_smaller_part_is_left_out():
    whole = {"a": 1.0, "b": 2.0, "c": 3.0}
    one_row_less = {"x": whole, "y": whole, "z": whole | {"d": 4.0}}
    assert significance.rank(one_row_less).left_out == ["d"]
    one_column_less = {"x": whole, "y": whole, "z": {"a": 1.0}}
    ranking = significance.rank(one_column_less)
    assert (ranking.left_out, ranking.columns) == (["z"], ["x", "y"])
    assert significance.rank({"x": whole, "y": whole, "z": {}}).left_out == ["z"]


@pytest.mark.parametrize(
    "scores",
    [
        {},
        {"x": {"a": 1.0, "b": 2.0, "c": 3.0}},
        {"x": {"a": 1.0, "b": 2.0}, "y": {"a": 1.0, "b": 2.0}},
        {"x": {"a": 1.0, "b": 2.0, "c": 3.0}, "y": {}},
    ],
)
def test_one_experiment_or_two_rows_are_not_ranked(scores):
    assert significance.rank(scores) is None


def test_the_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scikit_posthocs", None)
    with pytest.raises(UserError, match=r"pip install 'keras_learnact\[training\]'"):
        significance.posthocs()
