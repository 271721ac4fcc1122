"""Paired comparisons of one metric over scans: signed-rank test, effect size, confidence interval, wins and losses.

Arrays in, numbers out; nothing is read or written here. What is undefined is None, with the reason.

References
----------
Wilcoxon. Individual comparisons by ranking methods. Biometrics Bulletin 1(6), 1945. doi:10.2307/3001968
King, Rosopa, Minium. Statistical Reasoning in the Behavioral Sciences, 2011: matched-pairs rank-biserial correlation.
Kerby. The simple difference formula. Comprehensive Psychology 3, 2014. doi:10.2466/11.IT.3.1
Efron. Bootstrap methods. Annals of Statistics 7(1), 1979. doi:10.1214/aos/1176344552
Holm. A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6(2), 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import stats

from biascorr_pydra.errors import InvalidParameterError

__all__ = ["FEWEST_SCANS", "Paired", "bootstrap_median", "compare", "holm", "rank_biserial", "signed_rank"]

#: With n pairs, no two-sided signed-rank p value is below 2 / 2^n, and no interval between two order statistics covers
#: the median with more than 1 - 2 / 2^n: below 6 pairs, neither 0.05 nor 95% can be reached.
FEWEST_SCANS = 6
RESAMPLES = 4999
CONFIDENCE = 0.95
# Differences below this part of the larger value are rounding, and count as ties.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Paired:
    """One metric of the same scans under a reference ("before", or a method) and under a method.

    Attributes
    ----------
    n : int
        Scans with both values.
    n_undefined : int
        Scans in which either value is undefined.
    median_reference, median_method : float or None
        Over the n scans.
    median_change : float or None
        Median of method - reference.
    ci_low, ci_high : float or None
        95% percentile bootstrap interval of ``median_change``.
    median_change_percent : float or None
        Median of the changes, each in percent of the magnitude of its reference value.
    n_fell, n_rose, n_tied : int
        Scans in which the method's value is lower, higher, equal.
    wins, losses : int or None
        Scans in which the method is better, worse.
    effect_size : float or None
        Matched-pairs rank-biserial correlation, -1 (all fell) to 1 (all rose).
    statistic, p : float or None
        Of the two-sided Wilcoxon signed-rank test: the smaller rank sum, and the p value.
    undefined : dict
        Name of a field that is None -> why.
    """

    n: int
    n_undefined: int
    median_reference: float | None = None
    median_method: float | None = None
    median_change: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    median_change_percent: float | None = None
    n_fell: int = 0
    n_rose: int = 0
    n_tied: int = 0
    wins: int | None = None
    losses: int | None = None
    effect_size: float | None = None
    statistic: float | None = None
    p: float | None = None
    undefined: dict[str, str] = field(default_factory=dict)


def compare(
    reference: Sequence[float | None], method: Sequence[float | None], *, direction: str = "none", seed: int = 0
) -> Paired:
    """Compare one metric of the same scans under two treatments.

    Parameters
    ----------
    reference, method : values, scan by scan; None or NaN where undefined
    direction : {'lower', 'higher', 'one', 'none'}
        Which values are better; 'one' is nearest to 1. With 'none' there are no wins and losses.
    seed : int
        Of the bootstrap.

    Raises
    ------
    InvalidParameterError
        The two do not have one length, or the direction is none of these.
    """
    if len(reference) != len(method):
        raise InvalidParameterError("paired values have one length", value=f"{len(reference)} and {len(method)}")
    pairs = np.array([reference, method], dtype=float)
    x, y = pairs[:, np.isfinite(pairs).all(0)]
    n, n_undefined = x.size, pairs.shape[1] - x.size
    reasons: dict[str, str] = {}
    if n == 0:
        nothing = "no scan has both values"
        names = ["median_reference", "median_method", "median_change", "median_change_percent", "ci_low", "ci_high"]
        names += ["wins", "losses", "effect_size", "statistic", "p"]
        return Paired(0, n_undefined, undefined=dict.fromkeys(names, nothing))
    changes = _changes(x, y)
    wins, losses = _wins(x, y, changes, direction, reasons)
    statistic, p = _test(changes, reasons)
    low, high = _interval(changes, seed, reasons)
    effect = rank_biserial(changes)
    if effect is None:
        reasons["effect_size"] = "all changes are 0"
    percent = None
    if (x != 0).all():
        percent = float(np.median(100 * changes / np.abs(x)))
    else:
        reasons["median_change_percent"] = "a reference value is 0"
    return Paired(
        n=n,
        n_undefined=n_undefined,
        median_reference=float(np.median(x)),
        median_method=float(np.median(y)),
        median_change=float(np.median(changes)),
        ci_low=low,
        ci_high=high,
        median_change_percent=percent,
        n_fell=int((changes < 0).sum()),
        n_rose=int((changes > 0).sum()),
        n_tied=int((changes == 0).sum()),
        wins=wins,
        losses=losses,
        effect_size=effect,
        statistic=statistic,
        p=p,
        undefined=reasons,
    )


def _changes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    changes = y - x
    return np.where(np.abs(changes) <= ROUNDING * np.maximum(np.abs(x), np.abs(y)), 0.0, changes)


def _wins(x, y, changes, direction: str, reasons: dict) -> tuple[int | None, int | None]:
    fell, rose = int((changes < 0).sum()), int((changes > 0).sum())
    if direction == "lower":
        return fell, rose
    if direction == "higher":
        return rose, fell
    if direction == "one":
        nearer = np.where(changes == 0, 0.0, np.abs(x - 1) - np.abs(y - 1))
        return int((nearer > 0).sum()), int((nearer < 0).sum())
    if direction != "none":
        raise InvalidParameterError("a direction is lower, higher, one or none", value=repr(direction))
    reasons |= dict.fromkeys(("wins", "losses"), "neither direction of this metric is better")
    return None, None


def _test(changes: np.ndarray, reasons: dict) -> tuple[float | None, float | None]:
    reason = _too_few(int((changes != 0).sum()), "change", "other than 0")
    if reason:
        reasons |= dict.fromkeys(("statistic", "p"), reason)
        return None, None
    return signed_rank(changes)


def _interval(changes: np.ndarray, seed: int, reasons: dict) -> tuple[float | None, float | None]:
    reason = _too_few(changes.size, "pair")
    if reason:
        reasons |= dict.fromkeys(("ci_low", "ci_high"), reason)
        return None, None
    return bootstrap_median(changes, seed=seed)


def _too_few(n: int, noun: str, which: str = "") -> str | None:
    if n >= FEWEST_SCANS:
        return None
    return f"only {n} {noun}{'' if n == 1 else 's'}{which and ' ' + which}, fewer than {FEWEST_SCANS}"


def signed_rank(changes: npt.ArrayLike) -> tuple[float, float]:
    """Two-sided Wilcoxon signed-rank test of changes about 0; changes of exactly 0 are left out.

    Exact for up to 50 changes without zeros and equal magnitudes, else the normal approximation with its correction
    for ties.

    Returns
    -------
    statistic (the smaller of the two rank sums) and p

    Examples
    --------
    >>> signed_rank([0.1, 0.2, 0.3, 0.4, 0.5])
    (0.0, 0.0625)
    """
    every = np.asarray(changes, float)
    nonzero = every[every != 0]
    distinct = np.unique(np.abs(nonzero)).size == nonzero.size
    exact = distinct and nonzero.size == every.size and nonzero.size <= 50
    # The choice is made here and not by scipy's "auto", which is another from version to version.
    test = stats.wilcoxon(nonzero, method="exact" if exact else "approx")
    return float(test.statistic), float(test.pvalue)


def rank_biserial(changes: npt.ArrayLike) -> float | None:
    """Matched-pairs rank-biserial correlation, (W+ - W-) / (W+ + W-), of changes other than 0; None if there are none.

    W+ and W- are the rank sums of the positive and of the negative changes, by their magnitudes: 1 if all rose, -1 if
    all fell, 0 if rises and falls balance.

    Examples
    --------
    >>> rank_biserial([-1.0, -2.0, -3.0])
    -1.0
    """
    every = np.asarray(changes, float)
    nonzero = every[every != 0]
    if nonzero.size == 0:
        return None
    ranks = stats.rankdata(np.abs(nonzero))
    return float((np.sign(nonzero) * ranks).sum() / ranks.sum())


def bootstrap_median(
    values: npt.ArrayLike, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the median; its cost does not grow with the number of values.

    Parameters
    ----------
    values : at least 2
    resamples : how often as many values are drawn with replacement
    confidence : between 0 and 1
    seed : the same seed gives the same interval

    Raises
    ------
    InvalidParameterError
        There are fewer than 2 values.
    """
    sample = np.asarray(values, float)
    if sample.size < 2:
        raise InvalidParameterError("an interval needs at least 2 values", value=sample.size)
    n, ordered = sample.size, np.sort(sample)
    # The middle of n draws from n values is the value at the middle of n uniform numbers: its place has a beta
    # distribution, so that only the middle is drawn and not the n.
    rng = np.random.default_rng(seed)
    lower, upper = (n + 1) // 2, n // 2 + 1
    place = rng.beta(lower, n + 1 - lower, resamples)
    medians = ordered[_drawn(place, n)]
    if upper > lower:  # an even number: the mean of the two in the middle
        place += (1 - place) * rng.beta(1, n - lower, resamples)
        medians = (medians + ordered[_drawn(place, n)]) / 2
    tail = 50 * (1 - confidence)
    low, high = np.percentile(medians, (tail, 100 - tail))
    return float(low), float(high)


def _drawn(place: np.ndarray, n: int) -> np.ndarray:
    """Which of n values uniform numbers draw."""
    return np.minimum((n * place).astype(int), n - 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment over the p values that are defined; None stays None.

    The i-th smallest of m is multiplied by m - i + 1, and no adjusted value is below that of a smaller p, or above 1.

    Examples
    --------
    >>> holm([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    adjusted: list[float | None] = [None] * len(p_values)
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = largest
    return adjusted
