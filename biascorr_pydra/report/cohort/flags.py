"""Which scans to look at first: failed, rejected, worse by the judge's verdict, or an outlier of their site.

A change is no reason to look at a scan that the judge calls better: by how much it is better depends on its field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from biascorr_pydra.quality import REJECTED
from biascorr_pydra.report.collect import Cohort, Result
from biascorr_pydra.statistics.outliers import SITE, RobustScore
from biascorr_pydra.statistics.verdicts import BETTER, NOT_JUDGED, WORSE

from .outliers import Measure

__all__ = ["KINDS", "SHOWN", "Flag", "Reason", "Thumbnail", "flags"]

SHOWN = 200  # that the page lists; their file has all

#: The gravest first, each with the reason why it stands there.
KINDS = {
    "failed": "there is no corrected image, and whatever comes after lacks the scan",
    "rejected": "there is an image, but it was not corrected as was asked for",
    "worse": "the image was corrected, and the judge calls it worse than acquired",
    "outlier": "the scan was corrected; the further it lies from its site, the likelier something is wrong with it",
}
_ORDER = tuple(KINDS)


@dataclass(frozen=True)
class Reason:
    """Why a scan is flagged, by a method or, of its acquired image, by none."""

    kind: str
    method: str | None
    text: str
    measure: Measure | None = None
    score: RobustScore | None = None


@dataclass(frozen=True)
class Thumbnail:
    """The small picture of a scan to look at: its content as an address, its size in pixels, what it shows in words."""

    source: str
    width: int
    height: int
    alt: str


@dataclass
class Flag:
    """A scan to look at, with all its reasons, the gravest first."""

    results: list[Result]
    reasons: list[Reason] = field(default_factory=list)

    @property
    def place(self) -> str:
        return self.results[0].place

    @property
    def kind(self) -> str:
        return self.reasons[0].kind

    @property
    def size(self) -> float:
        """The largest |z| of its outliers."""
        return max((abs(reason.score.z) for reason in self.reasons if reason.score), default=0.0)


def flags(cohort: Cohort, scored: Sequence[dict[Measure, RobustScore]], threshold: float) -> list[Flag]:
    """The scans to look at, the gravest first; outliers by size.

    Parameters
    ----------
    cohort
    scored : as :func:`biascorr_pydra.report.cohort.outliers.scores` gives it for the cohort's results
    threshold : the absolute z above which a number is an outlier's
    """
    by_place: dict[str, Flag] = {}
    for result, scores in zip(cohort.results, scored, strict=True):
        reasons = list(_reasons(result, scores, threshold))
        if reasons:
            flag = by_place.setdefault(result.place, Flag([]))
            flag.results.append(result)
            flag.reasons += [reason for reason in reasons if reason not in flag.reasons]
    for flag in by_place.values():
        flag.reasons.sort(key=lambda r: (_ORDER.index(r.kind), -abs(r.score.z) if r.score else 0))
    return sorted(by_place.values(), key=lambda flag: (_ORDER.index(flag.kind), -flag.size))


def _reasons(result: Result, scores: dict[Measure, RobustScore], threshold: float):
    if result.failed:
        yield Reason("failed", result.method, result.reason)
    if result.verdict == REJECTED:
        applied = result.part("gate").get("applied")
        instead = f"; {applied}'s field was applied" if applied not in (None, "none") else "; passed on as it is"
        yield Reason("rejected", result.method, result.verdict_reason + instead)
    pair = result.against_acquired
    word = pair.word if pair else NOT_JUDGED
    if pair and word == WORSE:
        yield Reason("worse", result.method, f"by the judge, than the acquired image: {pair.in_words()}")
    for measure, score in scores.items():
        if abs(score.z) > threshold and not (measure.part == "change" and word == BETTER):
            # The acquired image is the same for all methods: it is an outlier once.
            method = None if measure.part == "before" else result.method
            yield Reason("outlier", method, _text(measure, score), measure, score)


def _text(measure: Measure, score: RobustScore) -> str:
    way = "high" if score.z > 0 else "low"
    where = "its site" if score.group == SITE else "all sites"
    return f"{measure.title} is {way}: {score.value:.3g}, median of {where} {score.median:.3g}, z {score.z:+.1f}"
