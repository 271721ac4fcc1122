"""The columns of an evaluation's tables, as BIDS-style data dictionaries; their order is the tables'."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from biascorr_pydra.metrics import METRICS, shown_metrics
from biascorr_pydra.report.table import long_name
from biascorr_pydra.statistics.compare import CONFIDENCE, FEWEST_SCANS, RESAMPLES

__all__ = ["PROBLEM_COLUMNS", "comparison_dictionary", "scan_dictionary"]


def _text(description: str, **facts: Any) -> dict[str, Any]:
    return {"Description": description, **facts}


PROBLEM_COLUMNS = {
    "kind": _text("What kind of problem this is."),
    "where": _text("The file, folder, scan or participant concerned."),
    "text": _text("The problem in words. Nothing listed here stopped the rest."),
}

_SCAN = {
    "site": _text("Site of the scan, as the site table names it; n/a if nothing names one."),
    "site_source": _text(
        "What named the site.",
        Levels={
            "phenotypic": "the phenotypic table",
            "participants": "the data set's participants.tsv",
            "folder": "the folder of the site's data set",
            "neighbors": "the one site of the other scans in the same folder",
        },
    ),
    "folder": _text("Folder of the scan's data set in the study; n/a where the study is one data set."),
    "participant_id": _text("BIDS subject."),
    "session_id": _text("BIDS session, if any."),
    "scan": _text("Source image, relative to its data set."),
    "method": _text("Bias-field corrector; the name of its derivative data set."),
    "state": _text(
        "What became of the scan in the last run.",
        Levels={
            "done": "corrected in the last run",
            "cached": "corrected by an earlier run and still valid",
            "rejected": "the gate rejected the field, and the image was not corrected by it",
            "failed": "not corrected; the note says why",
            "not run": "no output was found",
        },
    ),
    "judge": _text(
        "What the delivered image is against the acquired one by the judge: better, worse, unchanged within noise, "
        "cannot tell, same, or not judged."
    ),
    "segmentation": _text("The method's own tissue segmentation, and the image it was made on; own values are of it."),
}
_PARTS = {
    "before": "the acquired image, on the judge's tissue",
    "after": "the corrected image, on the judge's tissue",
    "own_before": "the acquired image, on the method's own tissue; never ranked",
    "own_after": "the corrected image, on the method's own tissue; never ranked",
}


def scan_dictionary() -> dict[str, dict[str, Any]]:
    """Columns of scans.tsv: one row per scan and method."""
    columns = dict(_SCAN)
    for key in shown_metrics("image"):
        metric = METRICS[key]
        for part, image in _PARTS.items():
            columns[f"{key}_{part}"] = {
                "LongName": f"{long_name(key)}, {image}",
                "Description": metric.definition,
                "Units": metric.unit,
                "Direction": metric.direction,
                "Reference": metric.reference,
            }
    columns["note"] = _text("Why the scan failed, or why metrics are n/a.")
    return columns


def comparison_dictionary(first: str, n_tests: int, keys: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """Columns of sites.tsv (``first`` is "site") or overall.tsv ("unit"): one row per comparison.

    ``n_tests`` is the number of p values in the table, over which they are adjusted; ``keys`` are its metrics,
    by default those that are always shown.
    """
    heads = {
        "site": _text("Site."),
        "unit": _text(
            "What is compared.",
            Levels={
                "scan": "every scan counts once; scans of one site are taken as independent, which they are not",
                "site": "every site counts once, with the median over its scans that have both values",
            },
        ),
    }
    compared = shown_metrics("image") if keys is None else keys
    metrics = {key: f"{long_name(key)}: {METRICS[key].definition}" for key in compared}
    interval = (
        f"{CONFIDENCE:.0%} percentile bootstrap interval ({RESAMPLES} resamples, seeded) of median_change; "
        f"n/a for fewer than {FEWEST_SCANS}"
    )
    return {
        first: heads[first],
        "metric": _text("Metric.", Levels=metrics),
        "method": _text("Bias-field corrector."),
        "reference": _text('What it is compared with: "before" is the acquired image; otherwise another corrector.'),
        "n_scans": _text("Scans that were asked for. n/a where sites are compared."),
        "n_participants": _text("Participants of those scans. n/a where sites are compared."),
        "n": _text("Pairs compared: both values are defined."),
        "n_undefined": _text("Pairs left out because a value is undefined, failed scans included."),
        "median_reference": _text("Median under the reference, over the n pairs.", Units="1"),
        "median_method": _text("Median under the method, over the n pairs.", Units="1"),
        "median_change": _text("Median of method minus reference, pair by pair.", Units="1"),
        "ci_low": _text(f"Lower end of the {interval}.", Units="1"),
        "ci_high": _text(f"Upper end of the {interval}.", Units="1"),
        "median_change_percent": _text("Median of the changes in percent of the reference value.", Units="percent"),
        "n_fell": _text("Pairs in which the method's value is lower."),
        "n_rose": _text("Pairs in which the method's value is higher."),
        "n_tied": _text("Pairs in which both values are equal (to a part in 1e12)."),
        "wins": _text("Pairs in which the method is better; n/a for a metric of which neither direction is better."),
        "losses": _text("Pairs in which the method is worse; n/a as for wins."),
        "effect_size": _text(
            "Matched-pairs rank-biserial correlation: (sum of ranks that rose - that fell) / sum of ranks; "
            "-1 if all fell, 1 if all rose."
        ),
        "statistic": _text("Wilcoxon signed-rank statistic, the smaller rank sum; zero changes are left out."),
        "p": _text(
            "Two-sided p value of the Wilcoxon signed-rank test: exact for up to 50 pairs without ties and zeros, "
            f"else the normal approximation. n/a for fewer than {FEWEST_SCANS} changes, which cannot reach 0.05."
        ),
        "p_holm": _text(f"p adjusted by Holm's method over the {n_tests} p values in this table."),
        "note": _text("Why values are n/a."),
    }
