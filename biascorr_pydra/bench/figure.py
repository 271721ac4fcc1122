"""The figure of a benchmark: every scan as a dot, by data set, method and mask."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

__all__ = ["draw"]

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito
#: Column -> title, and the value that is best, if it is not simply the lower one.
PANELS = {
    "residual_cov": ("residual CoV, with a field\n(0 is best)", None),
    "invented": ("residual CoV, no field\n(0 is best: all is invented)", None),
    "slope": ("slope of the response to a known field\n(1 is best)", 1.0),
    "seconds": ("seconds a scan", None),
}
ROW_INCHES, TITLE_INCHES = 0.3, 0.75
JITTER = 0.16


def draw(rows: pd.DataFrame, kind: str) -> bytes | None:
    """The figure as 'png' or 'svg'; None where nothing was scored. Same rows, same bytes.

    One row of panels for each data set and kind of head. Filled dots: with the brain mask, open ones: without; bar: the
    median; dotted line: the median before any correction.
    """
    scored = rows[rows["residual_cov"].notna()]
    if scored.empty:
        return None
    scored = scored.assign(residual_cov=scored["residual_cov"].astype(float))
    none = scored["field"] == "none"
    scored = scored.assign(
        invented=scored["residual_cov"].where(none), residual_cov=scored["residual_cov"].where(~none)
    )
    groups = list(scored.groupby(["dataset", "head"], sort=False))
    panels = [name for name in PANELS if scored[name].notna().any()]
    methods = list(scored["method"].unique())
    heights = [TITLE_INCHES + ROW_INCHES * len(_lines(group)) for _, group in groups]
    with rc_context({"svg.hashsalt": "biascorr", "svg.fonttype": "none"}):
        figure = Figure(figsize=(3.4 * len(panels) + 1.6, sum(heights) + 0.8), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(groups), len(panels), squeeze=False, height_ratios=heights)
        for axes_row, ((dataset, head), group) in zip(grid, groups, strict=True):
            for axes, name in zip(axes_row, panels, strict=True):
                _draw_panel(axes, group, name, methods)
            axes_row[0].set_title(f"{dataset}, {head}", loc="left", fontsize=10, weight="bold")
        for axes, name in zip(grid[-1], panels, strict=True):
            axes.set_xlabel(PANELS[name][0], fontsize=9)
        figure.legend(handles=_legend(), loc="outside upper center", ncols=4, frameon=False, fontsize=9)
        stream = io.BytesIO()
        options = {"dpi": 110} if kind == "png" else {"metadata": {"Date": None}}
        figure.savefig(stream, format=kind, **options)
    return stream.getvalue()


def _lines(group: pd.DataFrame) -> list[tuple[str, str]]:
    """Methods and masks from top to bottom."""
    pairs = group[["method", "mask"]].drop_duplicates().itertuples(index=False, name=None)
    return sorted(pairs, key=lambda pair: (pair[0], pair[1] == "brain"))


def _draw_panel(axes, group: pd.DataFrame, name: str, methods: list[str]) -> None:
    if group[name].isna().all():
        axes.text(0.5, 0.5, "no such scans", transform=axes.transAxes, ha="center", color="#777777", fontsize=9)
        axes.set_axis_off()
        return
    lines = _lines(group)
    for y, (method, mask) in enumerate(lines):
        color = COLORS[methods.index(method) % len(COLORS)]
        values = group.loc[(group["method"] == method) & (group["mask"] == mask), name].dropna().astype(float)
        spread = np.linspace(-JITTER, JITTER, len(values)) if len(values) > 1 else np.zeros(len(values))
        face = color if mask == "brain" else "none"
        axes.plot(values, y + spread, "o", color=color, mfc=face, ms=4, mew=0.9, alpha=0.7)
        if len(values):
            axes.plot([values.median()] * 2, [y - 0.36, y + 0.36], color="black", linewidth=1.6)
    _mark_best(axes, group, name)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks(
        range(len(lines)), [f"{method}, {'brain mask' if mask == 'brain' else 'no mask'}" for method, mask in lines]
    )
    axes.tick_params(labelsize=8, labelleft=axes.get_subplotspec().is_first_col())
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for border in range(1, len(lines)):
        axes.axhline(border - 0.5, color="#e5e5e5", linewidth=0.6)


def _mark_best(axes, group: pd.DataFrame, name: str) -> None:
    best = PANELS[name][1]
    if best is not None:
        axes.axvline(best, color="#888888", linewidth=0.9)
    if name == "residual_cov":
        before = group.loc[group["field"] != "none", "before"].dropna().astype(float)
        if len(before):
            axes.axvline(before.median(), color="#555555", linewidth=1.2, linestyle=":")
    if name == "seconds":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if name != "slope":
        axes.set_xlim(left=0)


def _legend() -> list[Line2D]:
    def dot(face: str, label: str) -> Line2D:
        return Line2D([], [], linestyle="none", marker="o", color="#444444", markersize=5, mfc=face, label=label)

    return [
        dot("none", "a scan, no mask given"),
        dot("#444444", "a scan, brain mask given"),
        Line2D([], [], color="black", linewidth=1.6, label="median"),
        Line2D([], [], color="#555555", linewidth=1.2, linestyle=":", label="median before correction"),
    ]
