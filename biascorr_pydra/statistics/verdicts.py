"""Verdicts of pairs over scans: how often the one image was the better one, and whether that holds for the cohort.

Over a cohort one of two corrections is called better only where every number that ranks fell, scan by scan: a
signed-rank test of each and a bootstrap interval of the median change that excludes 0. Everything else is "unchanged
within noise", where no number says anything, or "cannot tell".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .compare import FEWEST_SCANS, Paired, compare

__all__ = [
    "BETTER",
    "CANNOT_TELL",
    "NOT_JUDGED",
    "SAME",
    "WITHIN_NOISE",
    "WORDS",
    "WORSE",
    "CohortVerdict",
    "cohort_verdict",
    "counted",
    "scan_verdict",
]

BETTER, WORSE, SAME = "better", "worse", "same"
CANNOT_TELL, WITHIN_NOISE, NOT_JUDGED = "cannot tell", "unchanged within noise", "not judged"
#: What a pair of images of a scan can be called, of the second against the first.
WORDS = (BETTER, WORSE, CANNOT_TELL, WITHIN_NOISE, SAME)
SIGNIFICANT = 0.05

Interval = tuple[float, float, float]  # change, low and high end


def scan_verdict(decided: str, intervals: Iterable[Interval]) -> str:
    """One of :data:`WORDS`: what is not decided is within noise if no interval of a change excludes 0.

    Parameters
    ----------
    decided : "better", "worse", "same" or "cannot tell"
    intervals : of each number, its change with both ends of its interval

    Examples
    --------
    >>> scan_verdict("cannot tell", [(-1.0, -3.0, 2.0), (0.5, -2.0, 3.0)])
    'unchanged within noise'
    >>> scan_verdict("cannot tell", [(-9.0, -12.0, -6.0), (4.0, 1.0, 7.0)])
    'cannot tell'
    """
    known = list(intervals)
    if decided == CANNOT_TELL and known and all(low <= 0 <= high for _, low, high in known):
        return WITHIN_NOISE
    return decided


def counted(words: Iterable[str | None]) -> dict[str, int]:
    """How often each of :data:`WORDS` and "not judged" (None) is among the scans; all of them are keys."""
    counts = Counter(NOT_JUDGED if word is None else word for word in words)
    return {word: counts[word] for word in (*WORDS, NOT_JUDGED)}


@dataclass(frozen=True)
class CohortVerdict:
    """What the scans of a cohort say together of a method against a reference.

    Attributes
    ----------
    word : "better", "worse", "cannot tell", "unchanged within noise", "same" or "not judged"
    why : in words
    n : scans with the numbers
    changes : number -> its median change in percent with its 95% interval; the ends are None for too few scans
    p : the largest of the tests' p; None where there are too few scans
    """

    word: str
    why: str
    n: int
    changes: Mapping[str, tuple[float | None, float | None, float | None]]
    p: float | None


def cohort_verdict(
    reference: Mapping[str, Sequence[float | None]],
    method: Mapping[str, Sequence[float | None]],
    *,
    p: float | None = None,
) -> CohortVerdict:
    """Compare a method with a reference by numbers of the same scans of which lower is better.

    Parameters
    ----------
    reference, method : number -> its positive values, scan by scan; None where undefined
    p : the p value that decides, where it was adjusted for other comparisons; by default the largest of the tests'
    """
    paired = {name: _compared(reference[name], method[name]) for name in reference}
    n = min((one.n for one in paired.values()), default=0)
    changes = {name: _percents(one) for name, one in paired.items()}
    tests = [one.p for one in paired.values() if one.p is not None]
    own = max(tests) if len(tests) == len(paired) and tests else None
    word, why = _decided(list(paired.values()), n, own if p is None else p)
    return CohortVerdict(word, why, n, changes, own)


def _compared(reference: Sequence[float | None], method: Sequence[float | None]) -> Paired:
    """A comparison of the logarithms: a change of a half is one of a half in every scan."""
    return compare(_log(reference), _log(method), direction="lower")


def _log(values: Sequence[float | None]) -> list[float | None]:
    return [float(np.log(value)) if value is not None and value > 0 else None for value in values]


def _percents(paired: Paired) -> tuple[float | None, float | None, float | None]:
    low, high = paired.ci_low, paired.ci_high
    return _percent(paired.median_change), _percent(low), _percent(high)


def _percent(log_change: float | None) -> float | None:
    return None if log_change is None else 100 * float(np.expm1(log_change))


def _decided(paired: Sequence[Paired], n: int, p: float | None) -> tuple[str, str]:
    if n == 0:
        return NOT_JUDGED, "no scan of both was judged"
    if all(one.n_tied == one.n for one in paired):
        return SAME, "the images are the same"
    if any(one.ci_low is None or one.ci_high is None for one in paired):
        return CANNOT_TELL, f"{n} judged {'scan' if n == 1 else 'scans'}, and a test over scans needs {FEWEST_SCANS}"
    fell = [one.ci_high is not None and one.ci_high < 0 for one in paired]
    rose = [one.ci_low is not None and one.ci_low > 0 for one in paired]
    if all(fell) or all(rose):
        if p is None or p >= SIGNIFICANT:
            return (
                CANNOT_TELL,
                f"by chance this happens with p = {p:.2g}" if p is not None else "too few scans changed for a test",
            )
        return (BETTER, "it fell") if all(fell) else (WORSE, "it rose")
    if not any(fell) and not any(rose):
        return WITHIN_NOISE, "the interval of the change includes 0"
    return CANNOT_TELL, "the numbers do not agree"
