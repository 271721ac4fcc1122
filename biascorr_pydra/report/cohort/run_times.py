"""What a cohort cost: wall-clock time of each step, by contrast and method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.table import STEPS, keys

__all__ = ["CORRECT", "run_times"]

CORRECT, SKULL_STRIP = "correct", "skull_strip"
SHARED = "all methods"


def run_times(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Rows of contrast, method and step: number of scans, median and quartiles in seconds, hours in all.

    Skull stripping, which the methods of a scan share, counts once a scan, as the longest that any of them recorded,
    under the method ``all methods``.
    """
    results = [result for result in results if result.record]
    times: dict[tuple[str, str, str], dict[str, float]] = {}
    for step in keys(results, "runtime_s", STEPS):
        for result in results:
            value = result.number("runtime_s", step)
            if value is not None:
                method = SHARED if step == SKULL_STRIP else result.method
                scans = times.setdefault((result.suffix, method, step), {})
                scans[result.place] = max(value, scans.get(result.place, 0.0))
    rows = []
    for (suffix, method, step), scans in sorted(times.items()):
        values = np.array(list(scans.values()))
        low, middle, high = np.percentile(values, (25, 50, 75))
        rows.append(
            {
                "suffix": suffix,
                "method": method,
                "step": step,
                "n_scans": values.size,
                "median_s": float(middle),
                "q25_s": float(low),
                "q75_s": float(high),
                "total_h": float(values.sum() / 3600),
                "per_1000_scans_h": float(values.mean() * 1000 / 3600),
            }
        )
    return rows
