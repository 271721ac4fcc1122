"""Scans that differ from the others of their site: robust z of metrics, by median and MAD.

z = (value - median) / (1.4826 MAD), over the scans of one contrast, method and site. Where half of the values are
equal, so that the MAD is 0, 1.2533 times the mean absolute deviation stands in for 1.4826 MAD: both estimate the
standard deviation of a normal distribution. A site of fewer than ``FEWEST`` scans has no spread worth the name: its
scans are judged among all scans of the contrast and method, and where these are too few as well, not at all.

References
----------
Iglewicz, Hoaglin. How to Detect and Handle Outliers. ASQC, 1993: the modified z score and its limit of 3.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.table import IMAGE_METRICS, Change, long_name

__all__ = ["FEWEST", "JUDGED", "THRESHOLD", "Measure", "Score", "robust_z", "scores"]

THRESHOLD = 3.5
FEWEST = 10


class Measure(NamedTuple):
    """A number of a result that is judged: a metric "before" or "after", of the "field", or its "change" in percent."""

    part: str
    key: str

    @property
    def column(self) -> str:
        """Its column in metrics.tsv, or what such a column would be called."""
        return self.key if self.part == "field" else f"{self.key}_{self.part}"

    @property
    def title(self) -> str:
        words = {"field": "", "change": ", change in percent"}.get(self.part, f" {self.part}")
        return long_name(self.key) + words

    def read(self, result: Result) -> float | None:
        return Change.of(result, self.key).percent if self.part == "change" else result.number(self.part, self.key)


JUDGED = (
    *(Measure("before", key) for key in IMAGE_METRICS),
    *(Measure("after", key) for key in IMAGE_METRICS),
    Measure("change", "cjv"),
    Measure("field", "inu_range"),
)


@dataclass(frozen=True)
class Score:
    """One number of one result among its likes.

    Attributes
    ----------
    value, z, median, spread : float
        Spread: the robust standard deviation.
    n : int
        Values compared.
    group : "site" or "all sites"
    """

    measure: Measure
    value: float
    z: float
    median: float
    spread: float
    n: int
    group: str


def robust_z(values: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, float, float]:
    """z of each value among others; with their median and robust standard deviation. Without any spread, z is NaN."""
    middle = float(np.median(among))
    apart = np.abs(among - middle)
    spread = 1.4826 * float(np.median(apart)) or 1.2533 * float(apart.mean())
    if not spread > 0:
        return np.full(values.shape, np.nan), middle, 0.0
    return (values - middle) / spread, middle, spread


def scores(results: Sequence[Result]) -> list[dict[Measure, Score]]:
    """The scores of each result, in order; a measure that is undefined or cannot be judged is left out."""
    found: list[dict[Measure, Score]] = [{} for _ in results]
    groups: dict[tuple[str, str], list[int]] = {}
    for i, result in enumerate(results):
        groups.setdefault((result.suffix, result.method), []).append(i)
    for members in groups.values():
        for measure in JUDGED:
            known = [(i, value) for i in members if (value := measure.read(results[i])) is not None]
            _score(found, results, measure, known)
    return found


def _score(found: list[dict], results: Sequence[Result], measure: Measure, known: list[tuple[int, float]]) -> None:
    everyone = np.array([value for _, value in known])
    sites: dict[str | None, list[tuple[int, float]]] = {}
    for i, value in known:
        sites.setdefault(results[i].site, []).append((i, value))
    for mine in sites.values():
        values = np.array([value for _, value in mine])
        small = values.size < FEWEST
        among = everyone if small else values
        if among.size < FEWEST:
            continue
        z, middle, spread = robust_z(values, among)
        group = "all sites" if small and len(sites) > 1 else "site"
        for (i, value), score in zip(mine, z, strict=True):
            if np.isfinite(score):
                found[i][measure] = Score(measure, value, float(score), middle, spread, among.size, group)
