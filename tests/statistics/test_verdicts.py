"""Verdicts over scans: every number must say it, and what they do not say is called by its name."""

import numpy as np
import pytest

from biascorr_pydra.statistics.verdicts import WORDS, cohort_verdict, counted, scan_verdict

LOWER = list(np.linspace(0.7, 0.8, 10))
HIGHER = list(np.linspace(1.2, 1.4, 10))
BOTH_WAYS = [0.9, 1.1, 0.95, 1.05, 0.93, 1.08, 0.97, 1.02, 0.91, 1.1]
ONE = [1.0] * 10


def verdict(first, second, **options):
    return cohort_verdict({"a": ONE, "b": ONE}, {"a": first, "b": second}, **options)


@pytest.mark.parametrize(
    ("first", "second", "word", "why"),
    [
        (LOWER, LOWER, "better", "it fell"),
        (HIGHER, HIGHER, "worse", "it rose"),
        (LOWER, HIGHER, "cannot tell", "do not agree"),
        (LOWER, BOTH_WAYS, "cannot tell", "do not agree"),
        (BOTH_WAYS, BOTH_WAYS, "unchanged within noise", "includes 0"),
        (ONE, ONE, "same", "the same"),
        ([None] * 10, [None] * 10, "not judged", "no scan of both"),
    ],
)
def test_all_numbers_decide(first, second, word, why):
    decided = verdict(first, second)
    assert decided.word == word and why in decided.why


def test_changes_are_of_the_logarithms():
    """Halves and quarters of the reference: the median of the ratios is between them, 2^-1.5, whatever the values."""
    reference = [1.0, 10.0, 100.0, 1.0, 5.0, 7.0]
    method = [value * factor for value, factor in zip(reference, [0.5, 0.25] * 3, strict=True)]
    decided = cohort_verdict({"a": reference}, {"a": method})
    assert decided.changes["a"][0] == pytest.approx(100 * (2**-1.5 - 1))
    assert decided.p == pytest.approx(2 / 2**6, rel=1) and decided.n == 6


def test_few_scans_are_counted_and_not_ranked():
    few = cohort_verdict({"a": ONE[:3], "b": ONE[:3]}, {"a": LOWER[:3], "b": LOWER[:3]})
    assert few.word == "cannot tell" and "3 judged scans, and a test over scans needs 6" in few.why
    assert few.p is None and few.changes["a"][1:] == (None, None)


def test_an_adjusted_p_decides():
    assert verdict(LOWER, LOWER).p == pytest.approx(2 / 2**10)
    decided = verdict(LOWER, LOWER, p=0.2)
    assert (decided.word, decided.why) == ("cannot tell", "by chance this happens with p = 0.2")


def test_a_scan_within_noise_is_told_from_one_that_cannot_be_told():
    assert scan_verdict("cannot tell", [(-1.0, -3.0, 1.0), (1.0, -1.0, 3.0)]) == "unchanged within noise"
    assert scan_verdict("cannot tell", [(-5.0, -7.0, -3.0), (1.0, -1.0, 3.0)]) == "cannot tell"
    assert scan_verdict("better", [(-5.0, -7.0, -3.0)]) == "better"
    assert scan_verdict("cannot tell", []) == "cannot tell"  # no interval is known


def test_counts_have_every_word():
    counts = counted(["better", None, "better", "same"])
    assert set(counts) == {*WORDS, "not judged"}
    assert (counts["better"], counts["not judged"], counts["same"], counts["worse"]) == (2, 1, 1, 0)
