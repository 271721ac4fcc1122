"""All that a cohort's page, tables and figures show, computed once from what was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from biascorr_pydra.metrics import METRICS
from biascorr_pydra.report.collect import Cohort, Result
from biascorr_pydra.report.ratings import Ratings
from biascorr_pydra.report.table import image_keys
from biascorr_pydra.report.verdicts import ALL_SITES, verdict_rows
from biascorr_pydra.statistics.outliers import RobustScore
from biascorr_pydra.statistics.pairing import adjusted, comparisons

from .flags import Flag, flags
from .mriqc import MriqcTable
from .outliers import Measure, scores
from .run_times import run_times
from .site_differences import site_differences

__all__ = ["Findings", "find", "frame"]


@dataclass
class Findings:
    """A cohort and what was found in it.

    Attributes
    ----------
    cohort : Cohort
    threshold : float
        Absolute robust z above which a scan is an outlier.
    scored : list of dict
        The robust z of each result's numbers, in the order of the cohort's results.
    flags : list of Flag
        Scans to look at, the gravest first.
    verdicts, verdicts_by_site : list of dict
        What the judge says of each pair of methods, over all scans of a contrast, and within its sites.
    comparisons, by_site : list of dict
        Paired comparisons of each metric over all scans of a contrast, and within its sites: descriptions, no ranking.
    site_differences, run_times : list of dict
    mriqc : MriqcTable or None
    ratings : Ratings
    """

    cohort: Cohort
    threshold: float
    scored: list[dict[Measure, RobustScore]]
    flags: list[Flag]
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    verdicts_by_site: list[dict[str, Any]] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    by_site: list[dict[str, Any]] = field(default_factory=list)
    site_differences: list[dict[str, Any]] = field(default_factory=list)
    run_times: list[dict[str, Any]] = field(default_factory=list)
    mriqc: MriqcTable | None = None
    ratings: Ratings = field(default_factory=Ratings)

    @property
    def counted(self) -> Cohort:
        """The cohort without the scans that readers excluded: what is compared and added up."""
        return _counted(self.cohort, self.ratings)

    @property
    def sites(self) -> list[str]:
        results = [*self.cohort.results, *self.cohort.normalized]
        return sorted({result.site for result in results if result.site})

    @property
    def waiting(self) -> int:
        """Corrections that a run has still to make, or to make again: the cohort is a part of what it will be."""
        return sum(result.state == "waiting" or result.outdated for result in self.cohort.results)

    @property
    def outdated(self) -> list[Result]:
        """Results of other settings than those of the run that is to make them again; compared as the others are."""
        return [result for result in self.cohort.results if result.outdated]


def find(cohort: Cohort, threshold: float, mriqc: MriqcTable | None = None, ratings: Ratings | None = None) -> Findings:
    """Judge, compare and add up a cohort's results; what readers excluded is scored and flagged, but not compared."""
    ratings = ratings or Ratings()
    counted = _counted(cohort, ratings)
    scored = scores(cohort.results)
    overall, by_site = _compared(counted.results)
    return Findings(
        cohort,
        threshold,
        scored,
        flags(cohort, scored, threshold),
        *_judged(counted),
        overall,
        by_site,
        site_differences([*counted.results, *counted.normalized]),
        run_times(cohort.results),
        mriqc,
        ratings,
    )


def _counted(cohort: Cohort, ratings: Ratings) -> Cohort:
    def left(results: list[Result]) -> list[Result]:
        return [result for result in results if not ratings.excluded(result.place)]

    return Cohort(cohort.name, left(cohort.results), cohort.problems, left(cohort.normalized))


def _judged(cohort: Cohort) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Verdicts over all scans of a contrast, and within its sites."""
    overall: list[dict[str, Any]] = []
    by_site: list[dict[str, Any]] = []
    for suffix in sorted({result.suffix for result in cohort.results}):
        results = [result for result in cohort.results if result.suffix == suffix]
        methods = [method for method in cohort.methods if any(r.method == method and r.record for r in results)]
        overall += verdict_rows(results, methods, {"suffix": suffix, "site": ALL_SITES})
        for site in sorted({result.site for result in results if result.site}):
            mine = [result for result in results if result.site == site]
            by_site += verdict_rows(mine, methods, {"suffix": suffix, "site": site})
    return overall, by_site


def _compared(results: list[Result]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Contrasts are not mixed: their metrics are not comparable. No direction: a metric alone ranks nothing."""
    directions = {key: "none" for key in image_keys(results) if key in METRICS}
    scans = frame(results)
    overall: list[dict[str, Any]] = []
    by_site: list[dict[str, Any]] = []
    for suffix, group in scans.groupby("suffix", sort=True) if len(scans) else ():
        overall += _comparisons(group, directions, {"suffix": suffix, "site": ALL_SITES})
        for site, rows in group[group["site"].notna()].groupby("site", sort=True):
            by_site += _comparisons(rows, directions, {"suffix": suffix, "site": site})
    return adjusted(overall), adjusted(by_site)


def _comparisons(scans: pd.DataFrame, directions: dict[str, str], first: dict[str, Any]) -> list[dict[str, Any]]:
    return comparisons(scans, list(dict.fromkeys(scans["method"])), directions, first)


def frame(results: Sequence[Result]) -> pd.DataFrame:
    """A row per result: where it belongs, and the values of its known metrics, ``cjv_before`` and so on."""
    return pd.DataFrame(_rows(results, [key for key in image_keys(results) if key in METRICS]))


def _rows(results: Iterable[Result], keys: list[str]) -> Iterator[dict[str, Any]]:
    for result in results:
        row: dict[str, Any] = {"folder": result.folder, "scan": result.scan, "participant_id": result.subject}
        row |= {"site": result.site, "suffix": result.suffix, "method": result.method}
        for key in keys:
            row |= {f"{key}_{part}": result.number(part, key) for part in ("before", "after")}
        yield row
