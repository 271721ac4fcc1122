"""Where a scan's numbers are among those of its site and contrast, by the same method."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median, quantiles

from biascorr_pydra.report.collect import Cohort, Result

__all__ = ["CohortRanges", "Place"]

FEWEST = 4  # scans of which quartiles are given; a site with fewer is compared with the whole cohort
PARTS = ("before", "after", "field")


@dataclass(frozen=True)
class Place:
    """Where a scan's value is among those of its site: same contrast, same method.

    Attributes
    ----------
    n : scans with a value, this one included
    low, quartile1, median, quartile3, high : of them; quartiles are None for fewer than four scans
    below, above : how many of the others have a smaller, and a larger value
    among : name of the site, or "cohort" where the site is not known or has fewer than four scans
    """

    n: int
    low: float
    quartile1: float | None
    median: float
    quartile3: float | None
    high: float
    below: int
    above: int
    among: str = "cohort"

    def words(self, way: str) -> str:
        """How many of the others it is lower than, where lower is better; else how many it is higher than."""
        others = self.n - 1
        if not others:
            return "the only scan"
        word, count = ("lower", self.above) if way == "lower" else ("higher", self.below)
        return f"{word} than {count} of {others} {'other' if others == 1 else 'others'}"


@dataclass
class _Values:
    """The values of some scans, in order, with their quartiles."""

    values: list[float]
    quartiles: tuple[float | None, float, float | None] = (None, 0.0, None)

    def settle(self) -> None:
        self.values.sort()
        lower, upper = None, None
        if len(self.values) >= FEWEST:
            lower, _, upper = quantiles(self.values, method="inclusive")
        self.quartiles = lower, median(self.values), upper

    def place(self, value: float, among: str) -> Place:
        below, above = bisect_left(self.values, value), len(self.values) - bisect_right(self.values, value)
        return Place(
            len(self.values), self.values[0], *self.quartiles, self.values[-1], below=below, above=above, among=among
        )


Key = tuple[str | None, str, str, str, str]  # site (None: all), contrast, method, part of the record, metric


class CohortRanges:
    """The cohort's values of each metric, by contrast and method, of each site and of all."""

    def __init__(self, cohort: Cohort):
        self._known: dict[Key, _Values] = {}
        for result in cohort.results:
            for part, key, value in _numbers(result):
                for site in {result.site, None}:
                    name = site, result.suffix, result.method, part, key
                    self._known.setdefault(name, _Values([])).values.append(value)
        for known in self._known.values():
            known.settle()

    def places(self, result: Result) -> dict[str, dict[str, Place]]:
        """Where one result is, by part of the record and metric."""
        by_part: dict[str, dict[str, Place]] = {}
        for part, key, value in _numbers(result):
            among, known = "cohort", self._known[None, result.suffix, result.method, part, key]
            if result.site is not None:
                of_site = self._known[result.site, result.suffix, result.method, part, key]
                among, known = (result.site, of_site) if len(of_site.values) >= FEWEST else (among, known)
            by_part.setdefault(part, {})[key] = known.place(value, among)
        return by_part


def _numbers(result: Result) -> Iterator[tuple[str, str, float]]:
    """The numbers of a result: part of the record, metric, value."""
    for part in PARTS:
        for key in result.part(part):
            if (value := result.number(part, key)) is not None:
                yield part, key, value
