"""Which field an image is divided by: the method's own, another method's that stands in for it, or none.

The method's field is judged (:mod:`biascorr_pydra.quality`). One that is accepted is divided out. Where there is no
field to speak of, or the field is rejected, the image is passed on as it is, with a field of exactly 1, unless another
method was named to fall back on in place of a rejected field, or of a method that refuses the image; its field is
judged alike.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from biascorr_pydra.bids import NOT_CORRECTED
from biascorr_pydra.bids.signs import Signs
from biascorr_pydra.errors import BiasCorrError, InvalidImageError
from biascorr_pydra.images.field import mean_one
from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan
from biascorr_pydra.methods.spec import NO_FALLBACK, MethodSpec
from biascorr_pydra.quality import REJECTED, Verdict, judge, not_judged

from .estimate import disagreement_of_flips, estimate_in_full, response

__all__ = ["Decision", "GateOptions", "decide_field", "parse_fallback"]

OFF = "the gate was switched off"


@dataclass(frozen=True)
class GateOptions:
    """How a correction is judged.

    Attributes
    ----------
    gate : bool
        Judge at all.
    fallback : str
        What takes the place of a rejected field, or of a method that refuses the image: "none", or a method, as METHOD
        or METHOD:PRESET.
    check_response : bool
        Also estimate the field of the image times a known one; as long again as the estimate.
    uncertainty : bool
        Also estimate the fields of the three mirror images; three times as long again. An image that the method refuses
        is then an error, fallback or not: nobody can say how uncertain a field is that there is not.
    """

    gate: bool = True
    fallback: str = NO_FALLBACK
    check_response: bool = False
    uncertainty: bool = False


@dataclass
class Decision:
    """The field to divide by, and how it came about.

    Attributes
    ----------
    bias : float32 array (I, J, K), mean 1 over the mask; exactly 1 where nothing is corrected
    corrector : the one whose field it is, or None
    estimate : the asked-for method's own record
    applied : the record of the estimate whose field it is
    gate : the verdict and its consequence, JSON-serialisable
    uncertainty : float32 array (I, J, K), or None
    warnings : sentences
    seconds : spent on estimating the asked-for field, and on judging it and what followed
    """

    bias: np.ndarray
    corrector: Corrector | None
    estimate: dict[str, Any]
    applied: dict[str, Any]
    gate: dict[str, Any]
    uncertainty: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def parse_fallback(text: str, corrector: Corrector | None = None) -> Corrector | None:
    """The method to fall back on; None for "none", and for the method that is itself the one rejected.

    Raises
    ------
    UnknownMethodError, InvalidParameterError
        No such method or preset.
    """
    if text == NO_FALLBACK:
        return None
    fallback = MethodSpec.parse(text).corrector()
    return None if fallback == corrector else fallback


def decide_field(
    corrector: Corrector,
    affine: np.ndarray,
    scan: Scan,
    scale_mask: np.ndarray,
    options: GateOptions,
    *,
    device: str,
    seed: int,
    signs: Signs,
    name: str,
    telling: Mapping[str, Any],
) -> Decision:
    """Estimate a field, judge it, and settle what the image is divided by.

    Parameters
    ----------
    corrector, affine, scan, device, seed
        See :func:`biascorr_pydra.correction.estimate.estimate`; ``telling`` goes there too.
    scale_mask : boolean array (I, J, K)
        Over which the field has mean 1, and is judged; without a mask, over the brain if the method finds one.
    options : GateOptions
    signs : of an earlier correction
    name : of the image, for messages

    Raises
    ------
    InvalidImageError
        The method refuses the image, and so does the fallback, or there is none, or ``uncertainty`` was asked for.
    BiasCorrError
        The field is not positive and finite everywhere, and the gate is off.
    """
    fallback = parse_fallback(options.fallback, corrector)
    began = time.perf_counter()
    how = {"affine": affine, "scan": scan, "device": device, "seed": seed}
    refusal = None
    try:
        log_bias, found = _estimated(corrector, name, **how, **telling)
    except InvalidImageError as error:
        if fallback is None or options.uncertainty:
            raise
        refusal, estimated = error, time.perf_counter()
        decision, verdict = Decision(np.ones_like(scan.data), None, {}, {}, {}), _refused(error)
    else:
        estimated = time.perf_counter()
        decision, verdict = _own(corrector, log_bias, found, scale_mask, options, signs, name, **how)
    stand_in = None
    if verdict.verdict == REJECTED and fallback is not None:
        try:
            stand_in = _stand_in(fallback, scale_mask, options.gate, signs, name, decision, **how)
        except InvalidImageError as error:
            if refusal is not None:
                raise refusal from error
            stand_in = _refused(error)
            _pass_on(decision, scale_mask.shape)
    elif not verdict.applies:
        _pass_on(decision, scale_mask.shape)
    decision.gate = {
        "judged": options.gate,
        **verdict.as_dict(),
        "applied": decision.corrector.name if decision.corrector else NOT_CORRECTED,
        "fallback": options.fallback,
        "fallback_verdict": stand_in and stand_in.as_dict(),
    }
    decision.warnings += _in_words(corrector, verdict, stand_in, decision)
    decision.seconds = {"estimate": estimated - began, "gate": time.perf_counter() - estimated}
    return decision


def _refused(error: InvalidImageError) -> Verdict:
    return Verdict(REJECTED, (f"the method refused the image, by the rule that {error.rule} ({error.value})",))


def _own(
    corrector, log_bias, found: Estimate, scale_mask, options: GateOptions, signs, name, *, scan, **how
) -> tuple[Decision, Verdict]:
    """The asked-for method's field, and what the gate says of it."""
    record, bias, more, uncertainty = dict(found.record), _field(log_bias, scale_mask), {}, None
    how["scan"] = scan
    if options.uncertainty:
        uncertainty, more["flip_disagreement"] = disagreement_of_flips(corrector, log_bias, scale_mask, **how)
    if options.check_response and options.gate:
        more["response"] = response(corrector, log_bias, scale_mask, **how)
    verdict = _judge(corrector, bias, scan, scale_mask, found.brain, options.gate, signs, more, name)
    return Decision(bias, corrector, record, record, {}, uncertainty, list(record.get("notes", []))), verdict


def _estimated(corrector: Corrector, name: str, *what, **how) -> tuple[np.ndarray, Estimate]:
    """See :func:`.estimate.estimate_in_full`; a method that refuses an image does not know its name."""
    try:
        return estimate_in_full(corrector, *what, **how)
    except InvalidImageError as error:
        raise error.about(name) from error


def _field(log_bias: np.ndarray, scale_mask: np.ndarray) -> np.ndarray | None:
    """Bias field with mean 1 over the mask, or None for one that nothing can be divided by."""
    with np.errstate(over="ignore", invalid="ignore"):
        bias, _ = mean_one(log_bias, scale_mask)
    return bias if np.isfinite(bias).all() and (bias > 0).all() else None


def _judge(
    corrector: Corrector, bias, scan: Scan, scale_mask, brain, gate: bool, signs: Signs, more, name: str
) -> Verdict:
    if bias is None and not gate:
        raise BiasCorrError(
            "the estimated field is not positive and finite everywhere; nothing was written",
            file=name,
            next_step="Please report this scan; another method may work.",
        )
    if bias is None:
        return Verdict(REJECTED, ("the field is not positive and finite everywhere",))
    if not gate:
        return not_judged(OFF, signs)
    region = scale_mask if scan.weight is None else scale_mask & (scan.weight > 0)
    whole_head = scan.mask is None and brain is None
    if scan.mask is None and brain is not None:
        region = region & brain
    how = {"whole_head": whole_head, "signs": signs, "more": more, "invents": corrector.invents_at_most()}
    return judge(scan.data, bias, region, scan.voxel_size_mm, **how)


def _stand_in(
    fallback: Corrector, scale_mask, gate: bool, signs, name, decision: Decision, *, affine, scan, **how
) -> Verdict:
    """Put the fallback's field, if it is accepted, in the place of the rejected one."""
    if not fallback.uses_weight:
        scan = replace(scan, weight=None)
    log_bias, found = _estimated(fallback, name, affine, scan, **how)
    bias = _field(log_bias, scale_mask)
    verdict = _judge(fallback, bias, scan, scale_mask, found.brain, gate, signs, {}, name)
    if verdict.applies:
        decision.bias, decision.corrector, decision.applied = bias, fallback, dict(found.record)
        decision.warnings += found.record.get("notes", [])
    else:
        _pass_on(decision, scale_mask.shape)
    return verdict


def _pass_on(decision: Decision, shape: tuple[int, ...]) -> None:
    decision.bias, decision.corrector = np.ones(shape, np.float32), None


def _in_words(corrector: Corrector, verdict: Verdict, stand_in: Verdict | None, decision: Decision) -> list[str]:
    """What a user should know of the verdict."""
    if verdict.applies:
        return []
    said = f"The field by {corrector.name} is {verdict.verdict}: {'; '.join(verdict.reasons)}."
    if decision.corrector is not None:
        return [f"{said} The image was corrected by {decision.corrector.name} instead."]
    tried = f" So is the fallback's ({stand_in.verdict}: {'; '.join(stand_in.reasons)})." if stand_in else ""
    return [f"{said}{tried} The image was passed on as it is, with a field of 1."]
