"""The do-no-harm gate: a correction is judged before it is accepted, whichever method made it.

The limits were chosen by ``benchmarks/gate.py choose`` on simulated heads; ``docs/gate.md`` tells how often the gate
is wrong. It knows no true field: it can say that an image does not bear a field out, not that a field is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from biascorr_pydra.bids.signs import Signs
from biascorr_pydra.errors import InvalidParameterError

from .numbers import field_numbers

__all__ = [
    "ACCEPTED",
    "GATE_VERSION",
    "LIMITS",
    "NEGLIGIBLE",
    "NOT_JUDGED",
    "REJECTED",
    "Limit",
    "Verdict",
    "decide",
    "judge",
    "not_judged",
]

#: Changes whenever the same correction would be judged otherwise: part of the key of cached results.
GATE_VERSION = "2"
NO_SIGNS = Signs()

ACCEPTED, NEGLIGIBLE, REJECTED, NOT_JUDGED = "accepted", "negligible", "rejected", "not judged"


class Limit(NamedTuple):
    """A bound of one number: "least" or "most", its value, and what it means to be beyond it."""

    bound: str
    value: float
    reason: str

    def passed(self, value: float) -> bool:
        return value <= self.value if self.bound == "most" else value >= self.value


RIM_MM = 12.0

#: By number, in the order in which reasons are given; the first four are of the field alone.
LIMITS = {
    "field_range": Limit("most", 10.0, "the field's range is absurd"),
    "gradient_per_mm": Limit("most", 0.03, "the field is too steep for a bias field"),
    "curvature": Limit("most", 0.12, "the field is too rough for a bias field"),
    "flip_disagreement": Limit("most", 0.5, "the image and its mirror images give different fields"),
    "response": Limit("least", 0.2, "the method does not respond to a known extra field"),
    "sharpening": Limit("least", 0.07, "the histogram did not sharpen"),
    "support": Limit("least", 0.55, "the image does not bear the field out"),
    "contrast_change": Limit("least", -0.25, "contrast fell"),
}
ABSURD = ("field_range", "gradient_per_mm", "curvature", "flip_disagreement", "response")
#: A field weaker than this is negligible whatever else is true of it.
NOTHING_SD = 0.01
#: One weaker than this that does not sharpen the histogram is what methods find in images without a field.
SMALL_SD = 0.1
#: One that blurs the histogram by this much is not negligible but wrong.
BLURRED = -0.02
#: For fields stronger than their method was ever seen to invent: no evidence for them is wanted, only none against.
AGAINST = {
    "sharpening": Limit("least", 0.0, "the histogram was blurred"),
    "support": Limit("least", 0.45, "the image speaks against the field"),
}


@dataclass(frozen=True)
class Verdict:
    """What the gate says of one estimated field.

    Attributes
    ----------
    verdict : "accepted", "negligible" (no field to speak of: the image is passed on as it is), "rejected" or
        "not judged"
    reasons : sentences; empty for an accepted field
    checks : by number: its value, the limit, whether that is the least or the most, and whether it was kept;
        ``field_sd`` has two limits, "negligible below" and "weak below"
    already_corrected : signs that the image had been corrected before, whatever the verdict
    """

    verdict: str
    reasons: tuple[str, ...] = ()
    checks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    already_corrected: tuple[str, ...] = ()

    @property
    def applies(self) -> bool:
        """Whether the field is to be divided out."""
        return self.verdict in (ACCEPTED, NOT_JUDGED)

    def as_dict(self) -> dict[str, Any]:
        content = asdict(self)
        return content | {name: list(content[name]) for name in ("reasons", "already_corrected")}


def not_judged(reason: str, signs: Signs = NO_SIGNS) -> Verdict:
    """The verdict on a correction that the gate does not judge; it is applied."""
    return Verdict(NOT_JUDGED, (reason,), {}, (*signs.intensity, *signs.geometry))


def judge(
    data: np.ndarray,
    bias: np.ndarray,
    region: np.ndarray,
    voxel_size_mm: Sequence[float],
    *,
    whole_head: bool = False,
    signs: Signs = NO_SIGNS,
    further: Mapping[str, float] | None = None,
    invents: float | None = None,
) -> Verdict:
    """Judge an estimated field.

    Parameters
    ----------
    data : array (I, J, K)
        Acquired intensities.
    bias : array, same shape
        The field; its scale is free.
    region : boolean array, same shape
        The mask that was given, or the detected head.
    voxel_size_mm : three floats
    whole_head : bool
        The region is the detected head: its rim of 12 mm, mostly scalp and skull, is not looked at.
    signs : of an earlier correction; they are kept with the verdict, and decide nothing
    further : "response" and "flip_disagreement", where they were asked for
    invents : float, optional
        The strongest field that the method was seen to find where there is none (standard deviation of its log); of
        stronger ones no evidence for them is wanted, only none against them.

    Returns
    -------
    Verdict
        "not judged" where fewer than 500 voxels are positive.
    """
    numbers = field_numbers(data, bias, region, voxel_size_mm, rim_mm=RIM_MM if whole_head else 0.0)
    if numbers is None:
        return not_judged("too few positive voxels to judge by", signs)
    return decide({**numbers, **(further or {})}, signs=signs, invents=invents)


def decide(numbers: Mapping[str, float | None], *, signs: Signs = NO_SIGNS, invents: float | None = None) -> Verdict:
    """The verdict that follows from numbers of :func:`field_numbers`, whatever they were measured on.

    Raises
    ------
    InvalidParameterError
        "field_sd" or "sharpening" is None; they are always known.
    """
    strength, sharpening = numbers["field_sd"], numbers["sharpening"]
    if strength is None or sharpening is None:
        raise InvalidParameterError("a verdict needs field_sd and sharpening", value=dict(numbers))
    trusted = invents is not None and strength >= invents
    checks: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for name, limit in (LIMITS | (AGAINST if trusted else {})).items():
        value = numbers.get(name)
        if value is None:
            continue
        passed = limit.passed(value)
        checks[name] = {"value": round(value, 5), limit.bound: limit.value, "passed": passed}
        if not passed:
            failed[name] = f"{limit.reason} ({name} {value:.3g}, at {limit.bound} {limit.value:g})"
    small = {"negligible below": NOTHING_SD, "weak below": SMALL_SD if invents is None else invents}
    checks["field_sd"] = {"value": round(strength, 5), **small, "passed": strength >= NOTHING_SD}
    verdict, reasons = _weigh(failed, strength, small["weak below"], sharpening)
    return Verdict(verdict, tuple(reasons), checks, (*signs.intensity, *signs.geometry))


def _weigh(failed: Mapping[str, str], strength: float, small: float, sharpening: float) -> tuple[str, list[str]]:
    if absurd := [reason for name, reason in failed.items() if name in ABSURD]:
        return REJECTED, absurd
    if strength < NOTHING_SD:
        return NEGLIGIBLE, [f"the field hardly varies (field_sd {strength:.3g}, negligible below {NOTHING_SD:g})"]
    if strength < small and "sharpening" in failed and sharpening > BLURRED:
        text = "a weak field that sharpens the histogram no more than methods do where there is none"
        sharpened = f"sharpening {sharpening:.3g}, at least {LIMITS['sharpening'].value:g}"
        return NEGLIGIBLE, [f"{text} (field_sd {strength:.3g}, weak below {small:g}; {sharpened})"]
    return (REJECTED, list(failed.values())) if failed else (ACCEPTED, [])
