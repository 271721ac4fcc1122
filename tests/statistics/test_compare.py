"""Paired comparisons: against values worked out by hand, and against scipy."""

import itertools

import numpy as np
import pytest
from scipy import stats

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.statistics.compare import FEWEST_SCANS, bootstrap_median, compare, holm, rank_biserial, signed_rank

# Changes -3, -5, -1, +2, -4, -6: ranks of the magnitudes 3, 5, 1, 2, 4, 6; W+ = 2, W- = 19.
BEFORE = [10.0, 12.0, 9.0, 8.0, 11.0, 13.0]
AFTER = [7.0, 7.0, 8.0, 10.0, 7.0, 7.0]


def test_by_hand():
    paired = compare(BEFORE, AFTER, direction="lower")
    assert (paired.n, paired.n_undefined, paired.n_fell, paired.n_rose, paired.n_tied) == (6, 0, 5, 1, 0)
    assert (paired.wins, paired.losses) == (5, 1)
    assert paired.statistic == 2
    # Of the 64 sign patterns, those with W+ <= 2 are {}, {1}, {2}: three; two-sided 6 / 64.
    assert paired.p == pytest.approx(6 / 64)
    assert paired.effect_size == pytest.approx((2 - 19) / 21)
    assert paired.median_reference == 10.5 and paired.median_method == 7
    assert paired.median_change == -3.5  # between -3 and -4
    # -30, -41.7, -11.1, +25, -36.4, -46.2 percent
    assert paired.median_change_percent == pytest.approx(-(30 + 400 / 11) / 2)
    assert paired.undefined == {}


def test_wins_follow_the_direction():
    assert (compare(BEFORE, AFTER, direction="higher").wins, compare(BEFORE, AFTER, direction="higher").losses) == (
        1,
        5,
    )
    near_one = compare([0.5, 1.5, 1.0, 2.0], [0.8, 1.6, 1.0, 0.1], direction="one")
    assert (near_one.wins, near_one.losses, near_one.n_tied) == (2, 1, 1)
    neither = compare(BEFORE, AFTER, direction="none")
    assert neither.wins is None and "neither direction" in neither.undefined["losses"]
    with pytest.raises(InvalidParameterError, match="'up'"):
        compare(BEFORE, AFTER, direction="up")


def test_undefined_pairs_are_left_out_and_counted():
    paired = compare([*BEFORE, None, 5.0, float("nan")], [*AFTER, 1.0, None, 2.0], direction="lower")
    assert (paired.n, paired.n_undefined) == (6, 3)
    assert paired.p == pytest.approx(6 / 64)
    nothing = compare([None, 1.0], [1.0, None])
    assert (nothing.n, nothing.n_undefined, nothing.p) == (0, 2, None)
    assert nothing.undefined["median_change"] == "no scan has both values"
    with pytest.raises(InvalidParameterError, match="one length"):
        compare([1.0], [1.0, 2.0])


def test_few_scans_are_described_and_not_tested():
    paired = compare(BEFORE[:5], AFTER[:5], direction="lower")
    assert paired.p is None and paired.ci_low is None
    assert paired.undefined["p"] == "only 5 changes other than 0, fewer than 6"
    assert paired.undefined["ci_high"] == "only 5 pairs, fewer than 6"
    assert paired.median_change == -3 and paired.effect_size == pytest.approx((2 - 13) / 15)
    # The bound is where 0.05 comes into reach.
    smallest = [stats.wilcoxon(-np.arange(1.0, n + 1), method="exact").pvalue for n in (FEWEST_SCANS - 1, FEWEST_SCANS)]
    assert smallest[1] < 0.05 < smallest[0]


def test_no_change_at_all():
    paired = compare(BEFORE, BEFORE, direction="lower")
    assert (paired.n_tied, paired.wins, paired.losses) == (6, 0, 0)
    assert paired.effect_size is None and paired.undefined["effect_size"] == "all changes are 0"
    assert paired.p is None and paired.undefined["p"] == "only 0 changes other than 0, fewer than 6"
    assert (paired.median_change, paired.ci_low, paired.ci_high) == (0, 0, 0)
    rounding = compare([0.1 + 0.2], [0.3])  # the two differ in the last bit
    assert rounding.n_tied == 1


def test_a_reference_of_zero_has_no_percent():
    paired = compare([0.0, 2.0], [1.0, 1.0])
    assert paired.median_change_percent is None and paired.median_change == 0
    assert paired.undefined["median_change_percent"] == "a reference value is 0"


@pytest.mark.parametrize("n", [6, 20, 50, 51, 400])
def test_the_signed_rank_test_is_scipys(n):
    changes = np.random.default_rng(n).normal(0.2, 1, n)
    expected = stats.wilcoxon(changes, method="exact" if n <= 50 else "approx")
    assert signed_rank(changes) == (expected.statistic, expected.pvalue)


def test_ties_and_zeros_take_the_normal_approximation():
    changes = np.array([1, 1, -1, 2, 3, 3, 0, 0, 4, -2, 5.0])
    expected = stats.wilcoxon(changes, zero_method="wilcox", method="approx")
    assert signed_rank(changes) == (expected.statistic, expected.pvalue)
    # by hand: magnitudes 1 1 1 2 2 3 3 4 5 have ranks 2 2 2 4.5 4.5 6.5 6.5 8 9; W- = 2 + 4.5
    assert expected.statistic == 6.5
    mean, variance = 9 * 10 / 4, 9 * 10 * 19 / 24 - (24 + 6 + 6) / 48
    assert expected.pvalue == pytest.approx(2 * stats.norm.sf((mean - 6.5) / np.sqrt(variance)))


def test_rank_biserial_is_the_difference_of_rank_sums():
    assert rank_biserial([1, 2, 3]) == 1 and rank_biserial([-1, -2]) == -1
    assert rank_biserial([1, -1]) == 0 and rank_biserial([0.0, 0.0]) is None
    assert rank_biserial([3, -1, 0, -2]) == pytest.approx((3 - 3) / 6)


def test_the_bootstrap_interval_is_the_exact_one_and_scipys():
    values = np.sort(np.random.default_rng(1).gamma(2, 1, 25))
    # The median of 25 drawn values is at most the k-th when at least 13 of them are: Bin(25, k / 25) >= 13.
    below = stats.binom.sf(12, 25, np.arange(1, 26) / 25)
    exact = values[np.searchsorted(below, 0.025)], values[np.searchsorted(below, 0.975)]
    theirs = stats.bootstrap((values,), np.median, method="percentile", n_resamples=9999, rng=0).confidence_interval
    assert bootstrap_median(values, seed=3) == exact == (theirs.low, theirs.high)
    scattered = np.random.default_rng(2).normal(size=80)
    assert bootstrap_median(scattered, seed=3) == bootstrap_median(scattered, seed=3)


def test_the_bootstrap_interval_covers_the_median():
    rng = np.random.default_rng(0)
    covered = 0
    for number in range(2000):
        low, high = bootstrap_median(rng.normal(1.0, 1, 41), resamples=400, seed=number)
        covered += low <= 1.0 <= high
    assert 0.92 <= covered / 2000 <= 0.96  # 0.94 is what the percentile interval has at 41 values
    with pytest.raises(InvalidParameterError, match="at least 2"):
        bootstrap_median([1.0])


@pytest.mark.parametrize("n", [2, 3, 8, 9])
def test_the_bootstrap_draws_medians_as_often_as_drawing_all_values_would(n):
    """All n**n samples of the smallest sizes, drawn values of the others: the same distribution of the median."""
    values = np.arange(n) ** 2.0
    if n < 4:
        samples = np.array(list(itertools.product(values, repeat=n)))
    else:
        samples = np.random.default_rng(0).choice(values, (200_000, n))
    medians = np.median(samples, axis=1)
    for share in (0.5, 0.8, 0.95):
        low, high = bootstrap_median(values, resamples=200_000, confidence=share, seed=1)
        for end, tail in ((low, (1 - share) / 2), (high, (1 + share) / 2)):
            assert (medians < end).mean() - 0.005 <= tail <= (medians <= end).mean() + 0.005


def test_holm_by_hand():
    # 0.01 x 4, 0.02 x 3, 0.03 x 2 (not below 0.06), 0.2 x 1
    assert holm([0.02, None, 0.2, 0.01, 0.03]) == pytest.approx([0.06, None, 0.2, 0.04, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == [] and holm([None]) == [None]
