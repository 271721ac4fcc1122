"""Summaries as Markdown tables, as people read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from .scoring import WORSE_BY

__all__ = ["LEGEND", "TESTS", "failures", "leaderboard", "paired_table", "to_markdown"]

LEGEND = f"""\
- **n**: scans with a field, + scans without one.
- **before, residual CoV**: standard deviation over mean, in the brain, of the true field (what is there before any
  correction), and of estimated over true field; 0 is best. That is of kind *truth*. Where the true field is not known,
  the kind is *pair*: a known field k is injected into the scan v, before is that of k, and the residual that of
  estimate(v k) / (estimate(v) k). A pair tells whether a method sees a field, not whether it takes anatomy for one.
- **log RMSE**: root mean square error of the log field in the brain, its mean apart; 0 is best.
- **slope**: of the response to the further known field k; 1 is best, 0 means that the method does not see it.
- **worse**: share of scans left with a residual CoV above *before* by more than {WORSE_BY:g}. Where there is *no
  field*, whatever is found was invented: the residual CoV is how much, *worse* in how many scans.
- **CJV, WM CV, contrast**: medians after correction, in brackets the change from before, over scans with a
  tissue segmentation; a falling CV with a falling contrast is no gain.
- **judge: better, worse**: of the scans whose true field is not known, shares that the judge finds better and worse
  after the correction than before; of the rest it cannot tell. It has tissue of the acquired and the corrected image
  that no method made; it compares a correction with none, and ranks no two of them here.
- **s, CPU s**: of estimating the field and laying it over the scan's grid, wall clock and processor, median; reading,
  dividing and writing apart. **MiB**: how far that raised the process's resident memory, largest scan.
- A number without a comment is a mean over scans. n/a: not defined, or not there.
"""

TESTS = """\
The same scans under the same mask: Wilcoxon's signed-rank test, matched-pairs rank-biserial effect (-1: all lower than
the reference's, 1: all higher), bootstrap interval of the median change, Holm's adjustment over all of paired.tsv,
which also has log RMSE, CJV and CPU time. *field* no: on scans without one. Scans made from one label map or of one
person are not independent: p tells of these scans, not of people in general.
"""

Cell = Callable[[Mapping], str]


def _number(name: str, digits: int = 3) -> Cell:
    def cell(row: Mapping) -> str:
        value = row.get(name, np.nan)
        return "n/a" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"

    return cell


def _share(name: str) -> Cell:
    def cell(row: Mapping) -> str:
        value = row.get(name, np.nan)
        return "n/a" if not np.isfinite(value) else f"{100 * value:.0f}%"

    return cell


def _changed(name: str, digits: int = 3) -> Cell:
    def cell(row: Mapping) -> str:
        after, before = row.get(f"{name}_median", np.nan), row.get(f"{name}_before_median", np.nan)
        if not (np.isfinite(after) and np.isfinite(before)):
            return "n/a"
        return f"{after:.{digits}f} ({after - before:+.{digits}f})"

    return cell


def _count(row: Mapping) -> str:
    without = f" + {row['invented_n']:.0f}" if row.get("invented_n") else ""
    return f"{row['n']:d}{without}" + (f" ({row['failed']:d} failed)" if row["failed"] else "")


COLUMNS: dict[str, Cell] = {
    "method": lambda row: f"`{row['method']}`",
    "mask": lambda row: row["mask"],
    "n": _count,
    "before": _number("before_mean"),
    "residual CoV": _number("residual_cov_mean"),
    "log RMSE": _number("log_rmse_mean"),
    "slope": _number("slope_mean", 2),
    "worse": _share("worse"),
    "no field: residual CoV": _number("invented_mean"),
    "no field: worse": _share("invented_worse"),
    "CJV": _changed("cjv"),
    "WM CV": _changed("cv_wm"),
    "contrast": _changed("wm_gm_contrast"),
    "judge: better": _share("judge_better"),
    "judge: worse": _share("judge_worse"),
    "s": _number("seconds_median", 2),
    "CPU s": _number("cpu_seconds_median", 2),
    "MiB": _number("peak_mib_max", 0),
}
#: Metrics whose tests are printed; the others are in the table of them.
PRINTED = {"residual_cov": "residual CoV", "slope": "slope"}
OPTIONAL = ("no field: residual CoV", "no field: worse", "CJV", "WM CV", "contrast", "judge: better", "judge: worse")


def to_markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def leaderboard(summary: pd.DataFrame) -> str:
    """For every data set and kind of head, one line for each method and mask."""
    if summary.empty:
        return "Nothing was measured.\n"
    text = []
    overall = summary[summary["contrast"] == "all"]
    for (dataset, head), group in overall.groupby(["dataset", "head"], sort=False):
        kinds = ", ".join(sorted({kind for kind in group["kind"] if kind})) or "nothing scored"
        text.append(f"## {dataset}, {head} ({kinds})\n\n{_lines(_joined(group))}")
    return "\n".join(text)


def _joined(group: pd.DataFrame) -> list[dict]:
    """Scans with a field, and beside them what the method did where there is none."""
    group = group.sort_values(["method", "mask"])
    with_field = group[group["fielded"] == "yes"]
    without = {(row["method"], row["mask"]): row for _, row in group[group["fielded"] == "no"].iterrows()}
    rows = []
    for _, row in (with_field if len(with_field) else group).iterrows():
        other = without.get((row["method"], row["mask"]), {}) if len(with_field) else {}
        invented = {
            "invented_n": other.get("n", 0),
            "invented_mean": other.get("residual_cov_mean", np.nan),
            "invented_worse": other.get("worse", np.nan),
        }
        rows.append({**row, **invented})
    return rows


def _lines(rows: Sequence[Mapping]) -> str:
    cells = {name: [cell(row) for row in rows] for name, cell in COLUMNS.items()}
    shown = [name for name in COLUMNS if name not in OPTIONAL or set(cells[name]) != {"n/a"}]
    return to_markdown(shown, list(zip(*(cells[name] for name in shown), strict=True)))


def paired_table(comparisons: pd.DataFrame, reference: str) -> str:
    """The paired tests: one line for each method, mask and data; the metrics side by side."""
    if comparisons.empty:
        return f"No other method was scored on the scans of `{reference}`.\n"
    header = ["data", "field", "mask", "method", "n"]
    for name in PRINTED.values():
        header += [f"{name}: change [95%]", "better : worse", "effect", "p (Holm)"]
    by = ["dataset", "head", "fielded", "mask", "method"]
    lines = []
    for (dataset, head, fielded, mask, method), group in comparisons.groupby(by, sort=False):
        rows = {row["metric"]: row for _, row in group.iterrows()}
        n = max(row["n"] for row in rows.values())
        tests = [cell for metric in PRINTED for cell in _test(rows.get(metric))]
        lines.append([f"{dataset}, {head}", fielded, mask, f"`{method}`", str(n), *tests])
    return to_markdown(header, lines)


def _test(row: Mapping | None) -> list[str]:
    if row is None:
        return ["n/a"] * 4
    interval = "" if pd.isna(row["ci_low"]) else f" [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]"
    wins = "n/a" if pd.isna(row["wins"]) else f"{row['wins']:.0f} : {row['losses']:.0f}"
    return [f"{row['median_change']:+.3f}{interval}", wins, _number("effect_size", 2)(row), _p(row["p_holm"])]


def _p(value) -> str:
    if value is None or pd.isna(value):
        return "n/a"
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def failures(rows: pd.DataFrame) -> str:
    """The rows that have an error, one line each; empty if none has."""
    failed = rows[rows["error"].fillna("") != ""] if "error" in rows else rows[:0]
    lines = [
        [str(row[n]).replace("|", "/") for n in ("dataset", "scan", "method", "mask", "error")]
        for _, row in failed.iterrows()
    ]
    return to_markdown(["data", "scan", "method", "mask", "error"], lines) if lines else ""
