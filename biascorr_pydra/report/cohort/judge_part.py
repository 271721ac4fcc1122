"""What the page says of the judge: which method is better, the headline numbers, and what was not judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from biascorr_pydra.judge import ACQUIRED, RANKED_BY
from biascorr_pydra.metrics import METRICS
from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.table import long_name, own_keys
from biascorr_pydra.report.verdicts import better_first, judge_notes, sentence, undecided
from biascorr_pydra.report.words import NONE, number, p_value, percent
from biascorr_pydra.statistics.verdicts import BETTER, WORSE

from .findings import Findings

__all__ = ["NUMBERS", "judge_part"]

#: The numbers of the headline, on the judge's tissue.
NUMBERS = ("cjv", "cv_wm", "cv_gm", "wm_gm_contrast")


def judge_part(findings: Findings) -> dict[str, Any]:
    """For the template ``verdicts.html``: notes, and for each contrast its sentences, verdicts and numbers."""
    suffixes = []
    for suffix in sorted({result.suffix for result in findings.cohort.results}):
        results = [result for result in findings.counted.results if result.suffix == suffix and result.record]
        rows = [row for row in findings.verdicts if row["suffix"] == suffix]
        if not results:
            continue
        judged = [row for row in rows if row["n_not_judged"] < row["n_scans"]]
        suffixes.append(
            {
                "suffix": suffix,
                "notes": judge_notes(results),
                "sentences": [sentence(row) for row in judged if row["reference"] != ACQUIRED],
                "verdicts": [_verdict(better_first(row)) for row in judged],
                "numbers": list(_numbers(results)) if judged else [],
                "own": list(_own(results)),
            }
        )
    keys = [key for key in NUMBERS if key in METRICS]
    return {
        "suffixes": suffixes,
        "metrics": [long_name(key) for key in keys],
        "ranked_by": [long_name(key) for key in RANKED_BY],
    }


def _verdict(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "reference": "acquired image" if row["reference"] == ACQUIRED else row["reference"],
        "judged": row["n_scans"] - row["n_not_judged"],
        "undecided": undecided(row),
        "color": row["verdict"] if row["verdict"] in (BETTER, WORSE) else "",
        "changes": [_interval(row, key) for key in RANKED_BY],
        "p": NONE if row["p_holm"] is None else p_value(row["p_holm"]),
    }


def _interval(row: Mapping[str, Any], key: str) -> dict[str, str]:
    change, low, high = (row.get(f"{key}_{end}") for end in ("percent", "low", "high"))
    return {
        "change": percent(change),
        "interval": "" if low is None else f"{percent(low)} to {percent(high)}",
    }


def _numbers(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """Medians of the headline's numbers: the acquired image, and what each method delivered."""
    once = list({result.place: result for result in results}.values())
    groups = [("acquired", once, "before")]
    groups += [(m, [r for r in results if r.method == m], "after") for m in dict.fromkeys(r.method for r in results)]
    for name, members, part in groups:
        values = {key: _known(members, part, key) for key in NUMBERS}
        n = max(map(len, values.values()))
        yield {"name": name, "n": n, "cells": [number(_middle(values[key])) for key in NUMBERS]}


def _own(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """CJV by each method's own segmentation: what who uses that method alone will see, and no ranking."""
    if "cjv" not in own_keys(results):
        return
    for method in dict.fromkeys(result.method for result in results):
        of_method = [result for result in results if result.method == method]
        parts = {
            p: [v for r in of_method if (v := r.number(p, "cjv")) is not None] for p in ("own_before", "own_after")
        }
        made = ", ".join(dict.fromkeys(_segmentation(result) for result in of_method))
        if any(parts.values()):
            before, after = (number(_middle(values)) for values in parts.values())
            yield {"method": method, "n": len(parts["own_after"]), "before": before, "after": after, "made": made}


def _known(results: Sequence[Result], part: str, key: str) -> list[float]:
    return [value for result in results if (value := result.number(part, key)) is not None]


def _segmentation(result: Result) -> str:
    method, image = (result.part("segmentation").get(key) for key in ("method", "image"))
    return f"{method} on {image}" if image else str(method or "not recorded")


def _middle(values: Sequence[float]) -> float | None:
    return median(values) if values else None
