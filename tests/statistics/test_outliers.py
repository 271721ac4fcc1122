"""Robust z against hand-computed values, and which values are judged among which."""

import numpy as np
import pytest

from biascorr_pydra.statistics.outliers import FEWEST, robust_z, scores_by_site


def test_robust_z_by_hand():
    values = np.array([1.0, 2, 3, 4, 100])  # median 3; deviations 2, 1, 0, 1, 97: MAD 1
    z, middle, spread = robust_z(values, values)
    assert (middle, spread) == (3, pytest.approx(1.4826))
    np.testing.assert_allclose(z, (values - 3) / 1.4826)
    most_equal = np.array([5.0, 5, 5, 5, 9])  # MAD 0; the mean of the deviations is 0.8
    assert robust_z(most_equal, most_equal)[0][-1] == pytest.approx(4 / (1.2533 * 0.8))
    assert np.isnan(robust_z(np.ones(4), np.ones(4))[0]).all()


def test_a_site_of_enough_scans_is_judged_by_itself():
    spread = np.linspace(-0.02, 0.02, FEWEST)
    values = [*(0.5 + spread), 0.9, *(0.9 + spread)]
    scores = scores_by_site(values, ["A"] * (FEWEST + 1) + ["B"] * FEWEST)
    odd = scores[FEWEST]
    assert (odd.value, odd.n, odd.group) == (0.9, FEWEST + 1, "site") and odd.z > 10
    assert odd.median == np.median(values[: FEWEST + 1])
    assert max(abs(score.z) for score in scores[FEWEST + 1 :]) < 2


@pytest.mark.parametrize(("n", "expected"), [(FEWEST - 1, ("all sites", 2 * FEWEST - 1)), (FEWEST, ("site", FEWEST))])
def test_a_site_of_too_few_is_judged_among_all(n, expected):
    values = [float(value) for value in range(FEWEST + n)]
    score = scores_by_site(values, ["A"] * FEWEST + ["B"] * n)[-1]
    assert (score.group, score.n) == expected


def test_where_all_are_too_few_nothing_is_judged():
    values = [float(value) for value in range(FEWEST - 1)]
    assert scores_by_site(values, [None] * len(values)) == [None] * len(values)
    assert scores_by_site([], []) == []
    enough = [float(value) for value in range(FEWEST)]
    assert {score.group for score in scores_by_site(enough, ["A"] * FEWEST)} == {"site"}


def test_without_any_spread_nothing_is_judged():
    assert scores_by_site([1.0] * FEWEST, ["A"] * FEWEST) == [None] * FEWEST
