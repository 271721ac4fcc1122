"""Whether the records of a scan belong together: made from one source image, and judged as they are now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from biascorr_pydra.report.collect import Cohort, Problem, Result

__all__ = ["disagreements", "disagreements_of"]


def disagreements(cohort: Cohort) -> list[Problem]:
    """What the methods' records of each scan contradict each other in."""
    problems = []
    for place, results in cohort.by_scan().items():
        problems += [Problem(place, text) for text in disagreements_of(results)]
    return problems


def disagreements_of(results: Sequence[Result]) -> Iterator[str]:
    """What the records of one scan contradict each other in, in words.

    That methods have tissues of their own is no contradiction: what compares them is the judge's tissue, one a scan.
    """
    results = [result for result in results if result.record]
    if len({str(sha) for result in results if (sha := result.sidecar.get("SourceSHA256"))}) > 1:
        yield "the methods corrected different versions of the source image; run again with --rerun"
