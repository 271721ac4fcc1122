"""How far sites' intensities are apart, before and after: Jensen-Shannon divergences of normalized histograms.

Each scan's histogram (intensities in the brain, divided by their median) is divided by its sum, and a site's is the
mean over its scans, so that neither large brains nor large sites count more. Only scans that have both histograms
count, the same before and after. Part of a divergence is noise, the more the fewer scans a site has; it is in "before"
and "after" alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from biascorr_pydra.metrics import HISTOGRAM_BINS, HISTOGRAM_RANGE, UndefinedMetricError, jsd
from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.verdicts import ALL_SITES

__all__ = ["site_differences"]

STATES = ("before", "after")


def site_differences(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Rows of contrast, method and site: "jsd_before", "jsd_after" and "n_scans".

    A site's row has its divergence from the other sites, these taken together with equal weights; the row
    ``ALL_SITES`` has that of all sites from their mean. A contrast and method with histograms of fewer than two sites
    has no row.
    """
    groups: dict[tuple[str, str], dict[str, list[np.ndarray]]] = {}
    for result in results:
        both = _both(result)
        if both is not None and result.site:
            groups.setdefault((result.suffix, result.method), {}).setdefault(result.site, []).append(both)
    rows = []
    for (suffix, method), sites in sorted(groups.items()):
        if len(sites) < 2:
            continue
        names = sorted(sites)
        means = np.stack([np.mean(sites[name], axis=0) for name in names], axis=1)  # before and after, site, bin
        divergences = {ALL_SITES: [_jsd(part) for part in means]}
        for i, name in enumerate(names):
            others = np.delete(means, i, axis=1).mean(axis=1)
            divergences[name] = [_jsd([part[i], other]) for part, other in zip(means, others, strict=True)]
        counts = {name: len(sites[name]) for name in names}
        counts[ALL_SITES] = sum(counts.values())
        for name, (before, after) in divergences.items():
            first = {"suffix": suffix, "method": method, "site": name, "n_scans": counts[name]}
            rows.append({**first, "jsd_before": before, "jsd_after": after})
    return rows


def _jsd(distributions: Sequence[np.ndarray]) -> float | None:
    try:
        return jsd(np.asarray(distributions))
    except UndefinedMetricError:
        return None


def _both(result: Result) -> np.ndarray | None:
    """Shares of voxels before and after, array (2, bins); None where the record has none, or other ones."""
    histogram = result.part("histogram")
    try:
        counts = np.array([histogram[state] for state in STATES], dtype=float)
        if tuple(histogram["range"]) != HISTOGRAM_RANGE:
            return None
    except (KeyError, TypeError, ValueError):
        return None
    if counts.shape != (2, HISTOGRAM_BINS) or not np.isfinite(counts).all():
        return None
    if (counts < 0).any() or not counts.sum(axis=1).all():
        return None
    return counts / counts.sum(axis=1, keepdims=True)
