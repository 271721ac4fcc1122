"""Values that differ from the others of their site: robust z, by median and MAD.

z = (value - median) / (1.4826 MAD), over the values of one site. Where half of them are equal, so that the MAD is 0,
1.2533 times the mean absolute deviation stands in for 1.4826 MAD: both estimate the standard deviation of a normal
distribution. A site of fewer than ``FEWEST`` values has no spread worth the name: its values are judged among those of
all sites, and where these are too few as well, not at all.

References
----------
Iglewicz, Hoaglin. How to Detect and Handle Outliers. ASQC, 1993: the modified z score and its limit of 3.5.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["ALL_SITES", "FEWEST", "SITE", "THRESHOLD", "RobustScore", "robust_z", "scores_by_site"]

THRESHOLD = 3.5
FEWEST = 10
SITE, ALL_SITES = "site", "all sites"


@dataclass(frozen=True)
class RobustScore:
    """One value among its likes.

    Attributes
    ----------
    value, z, median, spread : float
        Spread: the robust standard deviation.
    n : int
        Values compared.
    group : "site" or "all sites"
    """

    value: float
    z: float
    median: float
    spread: float
    n: int
    group: str


def robust_z(values: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, float, float]:
    """z of each value among others; with their median and robust standard deviation. Without any spread, z is NaN.

    Examples
    --------
    >>> z, center, spread = robust_z(np.array([1.0, 2.0, 3.0, 30.0]), np.array([1.0, 2.0, 3.0, 30.0]))
    >>> center
    2.5
    """
    middle = float(np.median(among))
    deviations = np.abs(among - middle)
    spread = 1.4826 * float(np.median(deviations)) or 1.2533 * float(deviations.mean())
    if not spread > 0:
        return np.full(values.shape, np.nan), middle, 0.0
    return (values - middle) / spread, middle, spread


def scores_by_site(values: Sequence[float], sites: Sequence[Hashable]) -> list[RobustScore | None]:
    """The score of each value within its site; None where it cannot be judged.

    Parameters
    ----------
    values : finite numbers
    sites : where each was acquired; None, for all that are not known, is a site as well
    """
    everyone = np.array(values)
    members: dict[Hashable, list[int]] = {}
    for i, site in enumerate(sites):
        members.setdefault(site, []).append(i)
    scores: list[RobustScore | None] = [None] * len(everyone)
    for indices in members.values():
        small = len(indices) < FEWEST
        among = everyone if small else everyone[indices]
        if among.size < FEWEST:
            continue
        z_values, middle, spread = robust_z(everyone[indices], among)
        group = ALL_SITES if small and len(members) > 1 else SITE
        for i, z in zip(indices, z_values, strict=True):
            if np.isfinite(z):
                scores[i] = RobustScore(values[i], float(z), middle, spread, among.size, group)
    return scores
