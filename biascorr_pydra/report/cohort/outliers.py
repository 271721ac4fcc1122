"""Which numbers of a scan are judged against those of its site, as :mod:`biascorr_pydra.statistics.outliers` does it.

Scans are compared within their contrast and method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from biascorr_pydra.metrics import METRICS
from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.table import Change, long_name
from biascorr_pydra.statistics.outliers import RobustScore, scores_by_site

__all__ = ["Measure", "judged_measures", "scores"]

PARTS = ("before", "after", "change", "field")


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


def judged_measures() -> list[Measure]:
    """The numbers that are judged, as the metrics' declarations say."""
    return [Measure(part, key) for part in PARTS for key, metric in METRICS.items() if part in metric.judged]


def scores(results: Sequence[Result]) -> list[dict[Measure, RobustScore]]:
    """The scores of each result, in order; a measure that is undefined or cannot be judged is left out."""
    by_result: list[dict[Measure, RobustScore]] = [{} for _ in results]
    groups: dict[tuple[str, str], list[int]] = {}
    for i, result in enumerate(results):
        groups.setdefault((result.suffix, result.method), []).append(i)
    for members in groups.values():
        for measure in judged_measures():
            known = [(i, value) for i in members if (value := measure.read(results[i])) is not None]
            judged = scores_by_site([value for _, value in known], [results[i].site for i, _ in known])
            for (i, _), score in zip(known, judged, strict=True):
                if score is not None:
                    by_result[i][measure] = score
    return by_result
