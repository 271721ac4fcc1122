"""The numbers that the page's plots are drawn from, as JSON that a page can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from biascorr_pydra.metrics import shown_metrics
from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.ratings import store_of
from biascorr_pydra.report.table import hint, image_keys, keys, long_name, own_keys
from biascorr_pydra.report.verdicts import ALL_SITES

from .findings import Findings
from .mriqc import MriqcTable

__all__ = ["payload"]

DIGITS = 5
NO_SITE = "no site known"


def payload(findings: Findings, links: Mapping[str, str]) -> dict[str, Any]:
    """Columns over the results, and what they are called.

    ``links`` are the addresses of the scans' pages by place, for those that are there.
    """
    results = findings.cohort.results
    sites = [*findings.sites, NO_SITE]
    flagged = {flag.place for flag in findings.flags}
    names: dict[str, list] = {
        "site": sites,
        "method": findings.cohort.methods,
        "suffix": sorted({result.suffix for result in results}),
    }
    index = {kind: {name: i for i, name in enumerate(known)} for kind, known in names.items()}
    stores = {root: number for number, root in enumerate(dict.fromkeys(result.root for result in results))}
    folders = {result.root: result.folder for result in results}
    return {
        **names,
        "name": findings.cohort.name,
        "stores": [{"id": store_of(root), "folder": folders[root]} for root in stores],
        "ratings": {place: rating.as_row() for place, rating in findings.ratings.by_place.items()},
        "metrics": _metrics(findings),
        "rows": {
            "name": [result.name for result in results],
            "place": [result.place for result in results],
            "link": [links.get(result.place) for result in results],
            "site": [index["site"][result.site or NO_SITE] for result in results],
            "method": [index["method"][result.method] for result in results],
            "suffix": [index["suffix"][result.suffix] for result in results],
            "flagged": [int(result.place in flagged) for result in results],
            "excluded": [int(findings.ratings.excluded(result.place)) for result in results],
            "store": [stores[result.root] for result in results],
        },
        "values": {
            name: [_short(read(result)) for result in results] for name, read in _values(findings, results).items()
        },
        "siteDifferences": [
            {**row, "jsd_before": _short(row["jsd_before"]), "jsd_after": _short(row["jsd_after"])}
            for row in findings.site_differences
            if row["site"] != ALL_SITES
        ],
    }


def _metrics(findings: Findings) -> list[dict[str, Any]]:
    """What can be chosen in the plot by site: its title, and the columns of its values before and after."""
    results = findings.cohort.results
    chosen: list[dict[str, Any]] = [
        {"title": long_name(key), "hint": hint(key), "before": f"before:{key}", "after": f"after:{key}"}
        for key in image_keys(results)
    ]
    chosen += [
        {
            "title": f"{long_name(key)}, own segmentation",
            "hint": "never ranked",
            "before": None,
            "after": f"own_after:{key}",
        }
        for key in own_keys(results)
    ]
    chosen += [
        {"title": long_name(key), "hint": "", "before": None, "after": f"field:{key}"}
        for key in keys(results, "field", shown_metrics("field"))
    ]
    chosen += [
        {
            "title": "Run time of the correction, s",
            "hint": "lower is better",
            "before": None,
            "after": "runtime_s:correct",
        }
    ]
    chosen += [
        {"title": f"MRIQC: {key} of the acquired image", "hint": "", "before": f"mriqc:{key}", "after": None}
        for key in (findings.mriqc.numbers() if findings.mriqc else ())
    ]
    return chosen


def _values(findings: Findings, results: Sequence[Result]) -> dict[str, Callable[[Result], Any]]:
    def part(name: str, key: str) -> Callable[[Result], Any]:
        return lambda result: result.number(name, key)

    readers = {f"{state}:{key}": part(state, key) for key in image_keys(results) for state in ("before", "after")}
    readers |= {f"own_after:{key}": part("own_after", key) for key in own_keys(results)}
    readers |= {f"field:{key}": part("field", key) for key in keys(results, "field", shown_metrics("field"))}
    readers["runtime_s:correct"] = part("runtime_s", "correct")
    table = findings.mriqc
    if table is not None:
        readers |= {f"mriqc:{key}": partial(_mriqc_value, table, key) for key in table.numbers()}
    return readers


def _mriqc_value(table: MriqcTable, key: str, result: Result) -> Any:
    return table.value(result, key)


def _short(value: Any) -> float | None:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else None
