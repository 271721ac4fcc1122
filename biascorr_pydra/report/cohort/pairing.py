"""Paired comparisons of metrics over a table of a row per scan and method: before and after, method and method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import pandas as pd

from biascorr_pydra.report.table import direction
from biascorr_pydra.statistics.compare import Paired, compare, holm

__all__ = ["BEFORE", "adjusted", "by_method", "comparison_row", "comparisons", "pairs", "values_of"]

BEFORE = "before"


def pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """(reference, method): each method against before, and each against those named before it."""
    return [(BEFORE, method) for method in methods] + list(combinations(methods, 2))


def by_method(scans: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The scans' rows of each method, by "folder" and "scan"."""
    return {method: rows.set_index(["folder", "scan"]) for method, rows in scans.groupby("method")}


def values_of(rows: Mapping[str, pd.DataFrame], key: str, reference: str, method: str) -> pd.DataFrame:
    """Columns "reference" and "method": values of one metric, scan by scan."""
    after = rows[method][f"{key}_after"]
    before = rows[method][f"{key}_before"] if reference == BEFORE else rows[reference][f"{key}_after"]
    return pd.DataFrame({"reference": before.astype(float), "method": after.astype(float)})


def comparisons(
    scans: pd.DataFrame, methods: Sequence[str], keys: Sequence[str], first: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row for each metric and pair; ``first`` stands at the beginning of each."""
    counts = {
        f"n_{name}": len(scans[["folder", column]].drop_duplicates())
        for name, column in (("scans", "scan"), ("participants", "participant_id"))
    }
    mine, rows = by_method(scans), []
    for key in keys:
        for reference, method in pairs(methods):
            values = values_of(mine, key, reference, method)
            paired = compare(values["reference"], values["method"], direction=direction(key))
            named = {**first, "metric": key, "method": method, "reference": reference}
            rows.append(comparison_row(named, paired, counts))
    return rows


def comparison_row(first: Mapping[str, Any], paired: Paired, counts: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison as a row, what is undefined with its reason in "note"."""
    found = asdict(paired)
    reasons: dict[str, list[str]] = {}
    for name, why in found.pop("undefined").items():
        reasons.setdefault(why, []).append(name)
    note = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    return {**first, **counts, **found, "note": note or None}


def adjusted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with "p_holm": p adjusted over all of them."""
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows
