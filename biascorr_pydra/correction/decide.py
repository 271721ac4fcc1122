"""Which field an image is divided by: the method's own, another method's that stands in for it, or none.

The method's field is judged (:mod:`biascorr_pydra.quality`). One that is accepted is divided out. Where there is no
field to speak of, or the field is rejected, the image is passed on as it is, with a field of exactly 1, unless another
method was named to fall back on in place of a rejected field, or of a method that refuses the image; its field is
judged alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from biascorr_pydra.bids import NOT_CORRECTED
from biascorr_pydra.errors import BiasCorrError, InvalidImageError
from biascorr_pydra.images.field import mean_one
from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan
from biascorr_pydra.quality import REJECTED, Verdict, judge, not_judged

from .advice import next_steps
from .case import Case
from .estimate import disagreement_of_flips, estimate_in_full, response
from .options import CorrectionOptions

__all__ = ["Decision", "decide"]

OFF = "the gate was switched off"


@dataclass(frozen=True)
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
    rejected : float32 array (I, J, K), or None
        The asked-for method's field where it was not divided out, because it was rejected or negligible.
    warnings : sentences
    seconds : spent on estimating the asked-for field, and on judging it and what followed
    """

    bias: np.ndarray
    corrector: Corrector | None
    estimate: Mapping[str, Any]
    applied: Mapping[str, Any]
    gate: Mapping[str, Any]
    uncertainty: np.ndarray | None
    rejected: np.ndarray | None
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class _Candidate:
    """A method's field, if it gave one that can be divided by, and what the gate says of it."""

    corrector: Corrector
    verdict: Verdict
    bias: np.ndarray | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    uncertainty: np.ndarray | None = None

    @property
    def notes(self) -> list[str]:
        return list(self.record.get("notes", []))


def decide(case: Case, options: CorrectionOptions, *, progress: Callable[..., None] | None = None) -> Decision:
    """Estimate a field, judge it, and settle what the image is divided by.

    Parameters
    ----------
    case : Case
    options : CorrectionOptions
        Of them ``gate``, ``fallback``, ``check_response`` and ``uncertainty``. With ``uncertainty`` an image that the
        method refuses is an error, fallback or not: nobody can say how uncertain a field is that there is not.
    progress : callable, optional
        For methods that report it.

    Raises
    ------
    InvalidImageError
        The method refuses the image, and so does the fallback, or there is none, or ``uncertainty`` was asked for.
    BiasCorrError
        The field is not positive and finite everywhere, and the gate is off.
    """
    began = time.perf_counter()
    refusal = None
    try:
        log_bias, estimate = _estimated(case, options, case.corrector, case.scan, progress)
    except InvalidImageError as error:
        if case.fallback is None or options.uncertainty:
            raise
        refusal, estimated_at = error, time.perf_counter()
        own = _Candidate(case.corrector, _refused(error))
    else:
        estimated_at = time.perf_counter()
        own = _judged_in_full(case, options, log_bias, estimate)
    stand_in = None
    if own.verdict.verdict == REJECTED and case.fallback is not None:
        stand_in = _stand_in(case, options, case.fallback, refusal)
    chosen = next((candidate for candidate in (own, stand_in) if candidate and candidate.verdict.applies), None)
    return Decision(
        bias=np.ones(case.scan.data.shape, np.float32) if chosen is None or chosen.bias is None else chosen.bias,
        corrector=chosen.corrector if chosen else None,
        estimate=own.record,
        applied=chosen.record if chosen else {},
        gate={
            "judged": options.gate,
            **own.verdict.as_dict(),
            "applied": chosen.corrector.name if chosen else NOT_CORRECTED,
            "fallback": options.fallback,
            "fallback_verdict": stand_in and stand_in.verdict.as_dict(),
            "next_steps": [] if chosen else list(_next_steps(case, options, own)),
        },
        uncertainty=own.uncertainty,
        rejected=None if own.verdict.applies else own.bias,
        warnings=tuple(_warnings(own, stand_in, chosen)),
        seconds={"estimate": estimated_at - began, "gate": time.perf_counter() - estimated_at},
    )


def _estimated(
    case: Case,
    options: CorrectionOptions,
    corrector: Corrector,
    scan: Scan,
    progress: Callable[..., None] | None = None,
) -> tuple[np.ndarray, Estimate]:
    """See :func:`.estimate.estimate_in_full`; a method that refuses an image does not know its name."""
    try:
        return estimate_in_full(
            corrector, case.img.affine, scan, device=case.device, seed=options.seed, progress=progress
        )
    except InvalidImageError as error:
        raise error.about(case.name) from error


def _refused(error: InvalidImageError) -> Verdict:
    return Verdict(REJECTED, (f"the method refused the image, by the rule that {error.rule} ({error.value})",))


def _judged_in_full(case: Case, options: CorrectionOptions, log_bias: np.ndarray, estimate: Estimate) -> _Candidate:
    """The asked-for method's field, judged also by the further estimates that were asked for."""
    bias, scan, mask = _field(log_bias, case.scale_mask), case.scan, case.scale_mask
    further: dict[str, float] = {}
    uncertainty = None
    asked = {"affine": case.img.affine, "scan": scan, "device": case.device, "seed": options.seed}
    if options.uncertainty:
        uncertainty, further["flip_disagreement"] = disagreement_of_flips(case.corrector, log_bias, mask, **asked)
    if options.check_response and options.gate:
        further["response"] = response(case.corrector, log_bias, mask, **asked)
    verdict = _judge(case, options, case.corrector, scan, bias, estimate.brain, further)
    return _Candidate(case.corrector, verdict, bias, dict(estimate.record), uncertainty)


def _stand_in(
    case: Case, options: CorrectionOptions, fallback: Corrector, refusal: InvalidImageError | None
) -> _Candidate:
    """The fallback's field and the verdict on it; where both methods refuse the image, the first one's error."""
    scan = case.scan if fallback.uses_weight else replace(case.scan, weight=None)
    try:
        log_bias, estimate = _estimated(case, options, fallback, scan)
    except InvalidImageError as error:
        if refusal is not None:
            raise refusal from error
        return _Candidate(fallback, _refused(error))
    bias = _field(log_bias, case.scale_mask)
    verdict = _judge(case, options, fallback, scan, bias, estimate.brain, {})
    return _Candidate(fallback, verdict, bias, dict(estimate.record))


def _field(log_bias: np.ndarray, scale_mask: np.ndarray) -> np.ndarray | None:
    """Bias field with mean 1 over the mask, or None for one that nothing can be divided by."""
    with np.errstate(over="ignore", invalid="ignore"):
        bias, _ = mean_one(log_bias, scale_mask)
    return bias if np.isfinite(bias).all() and (bias > 0).all() else None


def _judge(
    case: Case,
    options: CorrectionOptions,
    corrector: Corrector,
    scan: Scan,
    bias: np.ndarray | None,
    brain: np.ndarray | None,
    further: Mapping[str, float],
) -> Verdict:
    """The gate's verdict on a method's field; without a mask it is judged over the brain, if the method finds one."""
    if bias is None and not options.gate:
        raise BiasCorrError(
            "the estimated field is not positive and finite everywhere; nothing was written",
            file=case.name,
            next_step="Please report this scan; another method may work.",
        )
    if bias is None:
        return Verdict(REJECTED, ("the field is not positive and finite everywhere",))
    if not options.gate:
        return not_judged(OFF, case.signs)
    region = case.scale_mask if scan.weight is None else case.scale_mask & (scan.weight > 0)
    if scan.mask is None and brain is not None:
        region = region & brain
    return judge(
        scan.data,
        bias,
        region,
        scan.voxel_size_mm,
        whole_head=scan.mask is None and brain is None,
        signs=case.signs,
        further=further,
        invents=corrector.invents_at_most(),
    )


def _next_steps(case: Case, options: CorrectionOptions, own: _Candidate) -> tuple[str, ...]:
    return next_steps(
        own.verdict,
        method=own.corrector.name,
        fallback=options.fallback,
        masked=case.scan.mask is not None,
        has_field=own.bias is not None,
    )


def _warnings(own: _Candidate, stand_in: _Candidate | None, chosen: _Candidate | None) -> list[str]:
    """The methods' own notes, and what a user should know of the verdict."""
    notes = own.notes + (stand_in.notes if stand_in and stand_in is chosen else [])
    if own.verdict.applies:
        return notes
    sentence = f"The field by {own.corrector.name} is {_in_words(own.verdict)}."
    if chosen is not None:
        return [*notes, f"{sentence} The image was corrected by {chosen.corrector.name} instead."]
    if stand_in:
        sentence += f" So is the fallback's ({_in_words(stand_in.verdict)})."
    return [*notes, f"{sentence} The image was passed on as it is, with a field of 1."]


def _in_words(verdict: Verdict) -> str:
    return f"{verdict.verdict}: {'; '.join(verdict.reasons)}"
