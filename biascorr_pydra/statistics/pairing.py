"""Paired comparisons over a table with a row for each scan and method: before and after, method and method.

A table is a DataFrame with the columns "folder", "scan", "participant_id" and "method", and of each metric its values
``KEY_before`` and ``KEY_after``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import pandas as pd

from .compare import Paired, compare, holm

__all__ = ["BEFORE", "adjusted", "comparisons", "group_comparisons", "pairs"]

BEFORE = "before"


def pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """(reference, method): each method against before, and each against those named before it."""
    return [(BEFORE, method) for method in methods] + list(combinations(methods, 2))


def _by_method(scans: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The scans' rows of each method, by "folder" and "scan"."""
    return {str(method): rows.set_index(["folder", "scan"]) for method, rows in scans.groupby("method")}


def _values_of(rows: Mapping[str, pd.DataFrame], key: str, reference: str, method: str) -> pd.DataFrame:
    """Columns "reference" and "method": values of one metric, scan by scan.

    Parameters
    ----------
    rows : as :func:`_by_method` gives them
    key : the metric
    reference : "before", or a method
    method : the method whose values after correction are compared with the reference's
    """
    after = rows[method][f"{key}_after"]
    before = rows[method][f"{key}_before"] if reference == BEFORE else rows[reference][f"{key}_after"]
    return pd.DataFrame({"reference": before.astype(float), "method": after.astype(float)})


def comparisons(
    scans: pd.DataFrame, methods: Sequence[str], directions: Mapping[str, str], first: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """One row for each metric and pair of methods; every scan counts once.

    Parameters
    ----------
    scans : table, see the module
    methods : in the order in which they are compared
    directions : metric -> which of its values are better, see :func:`.compare.compare`
    first : what stands at the beginning of each row
    """
    counts = {
        f"n_{name}": len(scans[["folder", column]].drop_duplicates())
        for name, column in (("scans", "scan"), ("participants", "participant_id"))
    }
    rows_by_method = _by_method(scans)
    rows = []
    for key, direction in directions.items():
        for reference, method in pairs(methods):
            values = _values_of(rows_by_method, key, reference, method)
            paired = compare(values["reference"], values["method"], direction=direction)
            named = {**first, "metric": key, "method": method, "reference": reference}
            rows.append(_comparison_row(named, paired, counts))
    return rows


def group_comparisons(
    groups: Sequence[pd.DataFrame], methods: Sequence[str], directions: Mapping[str, str], first: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """As :func:`comparisons` of tables of groups (sites): each counts once, with the median over its scans.

    Only scans with both values count for a median, so that a group is compared over the same scans.
    """
    tables = [_by_method(group) for group in groups]
    rows = []
    for key, direction in directions.items():
        for reference, method in pairs(methods):
            medians = [_values_of(table, key, reference, method).dropna().median() for table in tables]
            paired = compare(
                [median["reference"] for median in medians],
                [median["method"] for median in medians],
                direction=direction,
            )
            named = {**first, "metric": key, "method": method, "reference": reference}
            rows.append(_comparison_row(named, paired, {"n_scans": None, "n_participants": None}))
    return rows


def _comparison_row(first: Mapping[str, Any], paired: Paired, counts: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison as a row, what is undefined with its reason in "note"."""
    numbers = asdict(paired)
    reasons: dict[str, list[str]] = {}
    for name, reason in numbers.pop("undefined").items():
        reasons.setdefault(reason, []).append(name)
    note = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    return {**first, **counts, **numbers, "note": note or None}


def adjusted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with "p_holm": p adjusted over all of them."""
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows
