"""Whether the methods of a scan can be compared: scored on one segmentation, and made from one source image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from biascorr_pydra.report.collect import Cohort, Problem, Result
from biascorr_pydra.report.table import image_keys, long_name

__all__ = ["disagreements", "disagreements_of"]

SAME = 1e-6  # relative: the same computation on the same data


def disagreements(cohort: Cohort) -> list[Problem]:
    """What the methods' records of each scan contradict each other in."""
    problems = []
    for place, results in cohort.by_scan().items():
        problems += [Problem(place, text) for text in disagreements_of(results)]
    return problems


def disagreements_of(results: Sequence[Result]) -> Iterator[str]:
    """What the records of one scan contradict each other in, in words."""
    results = [result for result in results if result.record]
    if len({repr(result.record.get("segmentation")) for result in results}) > 1:
        yield "the methods were scored with different segmentations"
    if len({str(sha) for result in results if (sha := result.sidecar.get("SourceSHA256"))}) > 1:
        yield "the methods corrected different versions of the source image"
    for key in image_keys(results):
        values = [value for result in results if (value := result.number("before", key)) is not None]
        if values and max(values) - min(values) > SAME * max(map(abs, values)):
            yield f"{long_name(key)} before differs between methods; their segmentations or sources differ"
