"""What was done, in sentences to be pasted into a methods section, with the references they need.

The sentences are made from the records and sidecars, so that they say what was run, not what is the default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from biascorr_pydra import __version__
from biascorr_pydra.anatomy.references import REFERENCES
from biascorr_pydra.errors import UnknownMethodError
from biascorr_pydra.methods import Reference, get_corrector
from biascorr_pydra.quality import NEGLIGIBLE, NOT_JUDGED, REJECTED
from biascorr_pydra.report.collect import Result

__all__ = ["Boilerplate", "boilerplate", "references_of"]


DECIDED = {
    NEGLIGIBLE: "found the field negligible, and the image was passed on unchanged",
    REJECTED: "rejected the field",
}


@dataclass(frozen=True)
class Boilerplate:
    """Sentences and the references they name."""

    sentences: list[str]
    references: list[Reference]


def references_of(method: str) -> tuple[Reference, ...]:
    """Whom to cite for a method of bias correction, brain extraction or segmentation; nobody for one not known here."""
    if method in REFERENCES:
        return REFERENCES[method]
    try:
        return get_corrector(method).references
    except UnknownMethodError:  # of a package that is not installed where the report is made
        return ()


def boilerplate(results: Iterable[Result]) -> Boilerplate:
    """What was done to one scan by each method that has a record."""
    cited: dict[str, Reference] = {}

    def named(method: str) -> str:
        references = references_of(method)
        cited.update({reference.key: reference for reference in references})
        return f"{method} ({'; '.join(reference.cited for reference in references)})" if references else method

    results = [result for result in results if result.record]
    sentences = [sentence for result in results for sentence in _correction(result, named)]
    sentences += [_segmentation(result, named) for result in results]
    sentences += _judging(results)
    return Boilerplate([s for s in dict.fromkeys(sentences) if s], list(cited.values()))


def _correction(result: Result, named: Callable[[str], str]) -> list[str]:
    about = _mapping(result, "Method")
    name = about.get("Name") or result.record.get("method") or result.method
    version = _mapping(result, "Software").get("biascorr_pydra", __version__)
    preset = about.get("Preset") or result.record.get("preset")
    weights = about.get("WeightsSHA256")
    details = [f"preset {preset}"] if preset else []
    details += [f"weights with SHA-256 {weights[:12]}…"] if isinstance(weights, str) else []
    in_brackets = f" ({', '.join(details)})" if details else ""
    brain = result.sidecar.get("MaskMethod") or result.record.get("skull_strip")
    where = f"within a brain mask by {named(str(brain))}" if brain and brain != "none" else "without a brain mask"
    made = (
        f"The {result.suffix} image was corrected for intensity non-uniformity with {named(str(name))}, as implemented "
        f"in biascorr_pydra {version}{in_brackets}, {where}."
    )
    return [made, _verdict(result, str(name))]


def _mapping(result: Result, key: str) -> Mapping[str, Any]:
    value = result.sidecar.get(key)
    return value if isinstance(value, Mapping) else {}


def _verdict(result: Result, name: str) -> str:
    if result.verdict is None or result.verdict == NOT_JUDGED:
        return f"The field estimated by {name} was divided out without being judged."
    applied = result.part("gate").get("applied")
    if result.verdict not in DECIDED:
        return (
            f"An automatic check of the field estimated by {name} (strength, smoothness, sharpening of the histogram, "
            "support by the image) accepted it; the acquired image was divided by the field, which was scaled to a "
            "mean of 1 over the mask, and was not resampled."
        )
    instead = f"; the image was corrected by {applied} instead" if applied not in (None, "none", name) else ""
    unchanged = "" if instead or result.verdict == NEGLIGIBLE else ", and the image was passed on unchanged"
    return f"An automatic check of the field estimated by {name} {DECIDED[result.verdict]}{unchanged}{instead}."


def _segmentation(result: Result, named: Callable[[str], str]) -> str:
    method, on = (result.part("segmentation").get(key) for key in ("method", "image"))
    if not method or method == "none":
        return ""
    return f"Gray matter, white matter and CSF were segmented with {named(str(method))}{f' on {on}' if on else ''}."


def _judging(results: Sequence[Result]) -> list[str]:
    if not any(result.judged.reason is None for result in results):
        return []
    return [
        "The acquired and the corrected images were compared, two at a time, on voxels that the segmentations of both "
        "assigned to white matter, or to gray matter, without the borders. An image was called better if these tissues "
        "were more even (spread of log intensities over the square root of their contrast) by at least 1% and beyond a "
        "95% bootstrap interval."
    ]
