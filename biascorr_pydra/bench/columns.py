"""The columns of a benchmark's tables; those of metrics follow from their declarations (:mod:`biascorr_pydra.metrics`).

``before``, ``slope``, ``inu_range``, ``worse`` and ``judge`` are the benchmark's own, see :func:`.scoring.score`.
"""

from __future__ import annotations

from biascorr_pydra.judge import RANKED_BY
from biascorr_pydra.metrics import METRICS, Metric, in_group

__all__ = ["averaged", "columns", "compared", "image_metrics", "score_metrics"]

_CASE = {
    "dataset": "name of the data folder",
    "scan": "label map, or path of the scan in its folder",
    "head": "whole or stripped (simulated), or as it is",
    "contrast": "T1w, T2w, FLAIR ...",
    "field": "none, smooth or rough (simulated), true (known), injected (not known: a pair)",
    "draw": "seed of the simulated head, or of the injected field",
    "brain": "where the brain mask is from that scores are taken over; head: the detected head, for lack of one",
    "method": "method, with its preset if not the default one",
    "mask": "what the method was given: none, or the brain mask",
    "implementation": "the method's version and weights",
    "kind": "truth: against the true field; pair: estimate(v k) / estimate(v) against the injected k",
}
_BEFORE = {"before": "std/mean over the brain of the true field (pair: of k)"}
_RESPONSE = {
    "slope": "regression of log estimate(v k) - log estimate(v) on log k over the brain; 1 is best",
    "inu_range": "95th - 5th percentile of the estimated field over the brain, its mean there being 1",
}
_WORSE = {"worse": "1 if residual_cov is above before by more than 0.005"}
_JUDGE = {
    "judge": "of a pair with a brain mask: whether the corrected image is better or worse than the acquired one",
    **{
        f"judge_{name}": f"change of {name} on the judge's tissue, from the acquired to the corrected image, in percent"
        for name in RANKED_BY
    },
}
_COST = {
    "seconds": "wall-clock time of estimating the field on the scan's grid",
    "cpu_seconds": "processor time of the same, all threads",
    "peak_mib": "how far the process's resident memory rose meanwhile, MiB",
}
_RECORD = {
    "undefined": "name: why a number has no value",
    "error": "why there is no score at all",
    "case_key": "changes if the scan, its truth or what was injected is another",
    "method_key": "changes if the method, its version, weights, parameters, device or seed is another",
}


def score_metrics() -> list[Metric]:
    """Scores of a field against the true one that have a column."""
    return [metric for metric in in_group("score") if metric.bench]


def image_metrics() -> list[Metric]:
    """Metrics of the image, before and after correction, that have columns."""
    return [metric for metric in in_group("image") if metric.bench]


def columns() -> dict[str, str]:
    """The columns of bench.tsv, in order: name -> what it is."""
    scores = {metric.bench: metric.bench_text for metric in score_metrics()}
    tissues: dict[str, str] = {}
    for metric in image_metrics():
        tissues |= {f"{metric.bench}_before": f"{metric.bench_text}, acquired", metric.bench: "the same, corrected"}
    return {**_CASE, **_BEFORE, **scores, **_RESPONSE, **_WORSE, **tissues, **_JUDGE, **_COST, **_RECORD}


def averaged() -> list[str]:
    """Columns that are summarized."""
    tissues = [name for metric in image_metrics() for name in (f"{metric.bench}_before", metric.bench)]
    return [*_BEFORE, *(metric.bench for metric in score_metrics()), *_RESPONSE, *tissues, *list(_JUDGE)[1:], *_COST]


def compared() -> dict[str, str]:
    """Columns that methods are tested by, and which of their values are better."""
    scores = {metric.bench: metric.direction for metric in score_metrics() if metric.compared}
    tissues = {metric.bench: metric.direction for metric in image_metrics() if metric.compared}
    return {**scores, "slope": METRICS["response_slope"].direction, **tissues, "cpu_seconds": "lower"}
