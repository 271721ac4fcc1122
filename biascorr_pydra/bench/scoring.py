"""Score one corrector on one case: a row of numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from biascorr_pydra.correction.divide import divide
from biascorr_pydra.correction.estimate import estimate
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.judge import ACQUIRED, judge_images
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Corrector
from biascorr_pydra.metrics import (
    UndefinedMetricError,
    residual_cov,
    response_slope,
    tissue_masks,
)
from biascorr_pydra.simulation.heads import inject_bias

from .case import Case, Planned
from .choices import MASKS
from .columns import image_metrics, score_metrics
from .memory import PeakMemory

__all__ = ["WORSE_BY", "corrector_of", "score", "score_cases"]

CORRECTED = "corrected"
#: A scan is worse than before if its residual CoV rose by more than this.
WORSE_BY = 0.005


def corrector_of(method: str) -> Corrector:
    """The corrector that METHOD or METHOD:PRESET names.

    Raises
    ------
    UnknownMethodError, InvalidParameterError
    """
    name, _, preset = method.partition(":")
    return get_corrector(name).from_options(preset or None)


def score(
    corrector: Corrector, case: Case, *, masked: bool = False, device: str = "cpu", seed: int = 0
) -> dict[str, Any]:
    """Measure one corrector on one case.

    The field of the scan v is estimated, and that of v * k, the same scan with a further known field. The corrector's
    estimate is taken as it is: no gate, no fallback.

    Parameters
    ----------
    corrector : Corrector
    case : Case
    masked : bool
        Whether the corrector is given the case's brain mask.
    device, seed : for the corrector

    Returns
    -------
    dict
        kind : 'truth', or 'pair' where the true field is not known
        before, residual_cov : std/mean over the brain of true field, and of estimated / true field; in a pair, of k,
            and of estimate(v k) / (estimate(v) k)
        log_rmse : root mean square error of the log field over the brain, its mean apart; in a pair, of
            log estimate(v k) - log estimate(v) against log k
        slope : regression of log estimate(v k) - log estimate(v) on log k over the brain; 1 is right, 0 is no response
        inu_range : 95th - 5th percentile of the estimated field over the brain, its mean there being 1
        worse : whether residual_cov is above before by more than :data:`WORSE_BY`
        cjv, cv_wm ..., all image metrics that are always shown, and each with _before : where there are tissues
        judge, and a change in percent for each metric that it ranks by : in a pair with a brain mask, whether the judge
            (:mod:`biascorr_pydra.judge`) finds the corrected image better or worse than the acquired one
        seconds, cpu_seconds, peak_mib : of the estimate of v; see :class:`~biascorr_pydra.bench.memory.PeakMemory`
        undefined : text, name -> why, of what has no value (None)
    """
    log_bias, cost = _measured(corrector, case, masked, device, seed)
    with_k, _ = estimate(
        corrector, case.affine, case.scan(masked, inject_bias(case.data, case.log_k)), device=device, seed=seed
    )
    row: dict[str, Any] = {"kind": "pair" if case.log_bias is None else "truth"}
    undefined: dict[str, str] = {}
    if case.log_bias is None:
        estimated, truth = with_k - log_bias, case.log_k
    else:
        estimated, truth = log_bias, case.log_bias

    put = _Putter(row, undefined)
    put("before", residual_cov, np.ones_like(truth), np.exp(truth), case.brain)
    fields = {"log_bias": estimated, "true_log_bias": truth, "mask": case.brain}
    fields |= {"bias": np.exp(estimated), "true_bias": np.exp(truth)}
    for metric in score_metrics():
        put(metric.bench, metric.of, fields)
    put("slope", response_slope, with_k - log_bias, case.log_k, case.brain)
    bias = np.exp(log_bias - log_bias[case.brain].mean())
    bias /= bias[case.brain].mean()
    row["inu_range"] = float(np.subtract(*np.percentile(bias[case.brain], (95, 5))))
    known = row["residual_cov"] is not None and row["before"] is not None
    row["worse"] = row["residual_cov"] > row["before"] + WORSE_BY if known else None
    if case.dseg is not None:
        _put_image_metrics(case, case.dseg, bias, put)
    if case.log_bias is None and case.brain_from != "head":
        row |= _judged(case, bias, undefined)
    row |= cost
    row["undefined"] = "; ".join(f"{name}: {reason}" for name, reason in undefined.items())
    return row


def _measured(corrector, case: Case, masked: bool, device: str, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    scan = case.scan(masked)
    with PeakMemory() as memory:
        wall, cpu = time.perf_counter(), time.process_time()
        log_bias, _ = estimate(corrector, case.affine, scan, device=device, seed=seed)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return log_bias, {"seconds": wall, "cpu_seconds": cpu, "peak_mib": memory.mib}


@dataclass
class _Putter:
    """Puts values into a row; None, and the reason elsewhere, for one that is undefined."""

    row: dict[str, Any]
    undefined: dict[str, str]

    def __call__(self, name: str, function: Callable[..., float], *arguments) -> None:
        try:
            self.row[name] = function(*arguments)
        except UndefinedMetricError as reason:
            self.row[name], self.undefined[name] = None, str(reason)


def _put_image_metrics(case: Case, dseg: np.ndarray, bias: np.ndarray, put: _Putter) -> None:
    masks = tissue_masks(dseg)
    tissues = {"gm": masks["GM"], "wm": masks["WM"], "gm_probability": masks["GM"], "wm_probability": masks["WM"]}
    for data, mark in ((case.data, "_before"), (divide(case.data, bias, keep_nonfinite=True), "")):
        values = {**tissues, "data": data, "voxel_size_mm": case.voxel_size_mm}
        for metric in image_metrics():
            if set(metric.needs) <= set(values):  # none that needs air: where it is, is not known
                put(f"{metric.bench}{mark}", metric.of, values)


def _judged(case: Case, bias: np.ndarray, undefined: dict[str, str]) -> dict[str, Any]:
    """The judge's verdict on one correction alone, so that it does not depend on which others are measured."""
    images = {ACQUIRED: case.data, CORRECTED: divide(case.data, bias, keep_nonfinite=True)}
    suffix = str(case.facts.get("contrast", ""))
    try:
        judgement = judge_images(images, case.brain, case.voxel_size_mm, suffix=suffix)
    except Exception as error:  # the other scores of an odd scan hold
        undefined["judge"] = f"the judge failed: {type(error).__name__}: {error}"
        return {"judge": None}
    if judgement.reason:
        undefined["judge"] = judgement.reason
        return {"judge": None}
    (pair,) = judgement.pairs
    verdict = {CORRECTED: "better", ACQUIRED: "worse"}.get(pair.verdict, pair.verdict)
    return {"judge": verdict, **{f"judge_{metric}": change for metric, (change, _, _) in pair.changes.items()}}


def score_cases(
    correctors: dict[str, Corrector] | Iterable[str],
    cases: Iterable[Case | Planned],
    *,
    masks: Iterable[str] = MASKS,
    device: str = "cpu",
    seed: int = 0,
) -> pd.DataFrame:
    """Rows of several correctors on several cases, in this process; an error is raised, not recorded.

    Parameters
    ----------
    correctors : correctors by the name that the rows are to have, or names as METHOD[:PRESET]
    cases : cases, or planned ones (from :func:`heads_from_labels` and the like), made one at a time
    masks : names in MASKS; 'brain' is left out where a case has only a detected head
    """
    if not isinstance(correctors, dict):
        correctors = {name: corrector_of(name) for name in correctors}
    masks = list(masks)
    if unknown := set(masks) - set(MASKS):
        raise InvalidParameterError("no such mask", value=", ".join(unknown), next_step=f"One of: {', '.join(MASKS)}.")
    rows = []
    for planned in cases:
        case = planned.make() if isinstance(planned, Planned) else planned
        for name, corrector in correctors.items():
            for mask in masks:
                if mask == "brain" and case.brain_from == "head":
                    continue
                scores = score(corrector, case, masked=mask == "brain", device=device, seed=seed)
                rows.append({**case.facts, "brain": case.brain_from, "method": name, "mask": mask, **scores})
    return pd.DataFrame(rows)
