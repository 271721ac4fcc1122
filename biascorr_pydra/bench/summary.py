"""From rows to summaries and paired tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from biascorr_pydra.statistics.compare import bootstrap_median, compare, holm

from .case import FACTS
from .columns import averaged, compared

__all__ = ["compare_methods", "summarize"]

NO_FIELD = "none"


def summarize(rows: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Summaries of rows from :func:`score_cases` or a bench.tsv.

    Parameters
    ----------
    rows : one for each case, method and mask; rows with an ``error`` count as failed
    seed : of the bootstrap

    Returns
    -------
    DataFrame
        For each data set, kind of head, method and mask: with a field and without one, each over all contrasts and
        for every contrast. Columns ``n`` (scored), ``failed``, ``worse`` (share of scans), ``judged`` (scans that
        the judge has compared), ``judge_better`` and ``judge_worse`` (shares of them), and of each number its
        ``_mean`` and ``_median``; of ``residual_cov`` also the 95% bootstrap interval of the median, ``_low`` and
        ``_high``. What is undefined is NaN.
    """
    if rows.empty:
        return pd.DataFrame()
    rows = _with_fielded(rows)
    entries: list[dict[str, Any]] = []
    by = ["dataset", "head", "fielded", "method", "mask"]
    for extra in ([], ["contrast"]):
        for names, group in rows.groupby([*by, *extra], sort=False):
            entry = dict(zip([*by, *extra], names, strict=True))
            entries.append({"contrast": "all", **entry, **_numbers(group, seed)})
    columns = [*by[:3], "contrast", *by[3:]]
    table = pd.DataFrame(entries)
    return table[[*columns, *[name for name in table if name not in columns]]]


def _with_fielded(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(fielded=np.where(rows["field"] == NO_FIELD, "no", "yes"))


def _failed(rows: pd.DataFrame) -> pd.Series:
    return rows["error"].fillna("") != "" if "error" in rows else pd.Series(False, rows.index)


def _numbers(group: pd.DataFrame, seed: int) -> dict:
    failed = _failed(group)
    scored = group[~failed]
    entry: dict = {"n": len(scored), "failed": int(failed.sum())}
    judged = scored["worse"].dropna() if len(scored) else scored.get("worse", pd.Series(dtype=float))
    kinds = scored["kind"].dropna().unique() if "kind" in scored else []
    entry["kind"] = " and ".join(sorted(kinds))
    entry["worse"] = float(judged.astype(float).mean()) if len(judged) else np.nan
    entry |= _verdicts(scored)
    for name in averaged():
        values = _values(scored, name)
        entry[f"{name}_mean"] = float(values.mean()) if values.size else np.nan
        entry[f"{name}_median"] = float(np.median(values)) if values.size else np.nan
    largest = _values(scored, "peak_mib")
    entry["peak_mib_max"] = float(largest.max()) if largest.size else np.nan
    values = _values(scored, "residual_cov")
    low, high = bootstrap_median(values, seed=seed) if values.size >= 2 else (np.nan, np.nan)
    return entry | {"residual_cov_low": low, "residual_cov_high": high}


def _verdicts(scored: pd.DataFrame) -> dict[str, Any]:
    """How many scans the judge has compared, and the shares of its verdicts."""
    verdicts = scored["judge"].replace("", None).dropna() if "judge" in scored else pd.Series(dtype=object)
    shares = {name: float((verdicts == name).mean()) if len(verdicts) else np.nan for name in ("better", "worse")}
    return {"judged": len(verdicts), **{f"judge_{name}": share for name, share in shares.items()}}


def _values(rows: pd.DataFrame, name: str) -> np.ndarray:
    values = rows[name].to_numpy(float) if name in rows else np.array([])
    return values[np.isfinite(values)]


def compare_methods(rows: pd.DataFrame, *, reference: str = "n4", seed: int = 0) -> pd.DataFrame:
    """Paired tests of every method against one of them, over the cases that both were scored on.

    Parameters
    ----------
    rows : as for :func:`summarize`
    reference : method (with its preset) that the others are compared with, each under the same mask
    seed : of the bootstrap

    Returns
    -------
    DataFrame
        One row for each data set, kind of head, with and without field, mask, metric and method: the columns of
        :class:`biascorr_pydra.statistics.compare.Paired`, and ``p_holm``, adjusted over all p values of the table.
        Empty if there is nothing to compare.
    """
    table_rows: list[dict[str, Any]] = []
    directions = compared()
    scored = rows[~_failed(rows)] if len(rows) else rows
    if len(scored) == 0:
        return pd.DataFrame()
    for names, group in _with_fielded(scored).groupby(["dataset", "head", "fielded", "mask"], sort=False):
        entry = dict(zip(("dataset", "head", "fielded", "mask"), names, strict=True))
        for metric, method, pair in _pairs(group, reference):
            paired = compare(pair["reference"], pair["other"], direction=directions[metric], seed=seed)
            numbers = asdict(paired)
            reasons = sorted(set(numbers.pop("undefined").values()))
            table_rows.append({**entry, "metric": metric, "method": method, **numbers, "undefined": "; ".join(reasons)})
    table = pd.DataFrame(table_rows)
    if len(table):
        p_values = [None if p is None or np.isnan(p) else float(p) for p in table["p"]]
        table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(p_values))
    return table


def _pairs(group: pd.DataFrame, reference: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    methods: Iterable[str] = [m for m in group["method"].unique() if m != reference]
    for metric in compared():
        if metric not in group:
            continue
        wide = group.drop_duplicates([*FACTS, "method"]).set_index([*FACTS, "method"])[metric].unstack("method")
        if reference not in wide:
            return
        for method in methods:
            if method in wide:
                both = wide[[reference, method]].astype(float).dropna()
                if len(both):
                    yield metric, method, both.set_axis(["reference", "other"], axis=1)
