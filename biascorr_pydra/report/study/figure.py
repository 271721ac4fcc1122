"""The change of each metric, scan by scan, by site and method: the figure of an evaluation, and one of a cohort's."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from biascorr_pydra.metrics import shown_metrics
from biascorr_pydra.report.table import hint, long_name

from .evaluation import Evaluation

__all__ = ["COLORS", "ROW_INCHES", "changes_figure", "draw_changes"]

# Okabe and Ito's colors, told apart by most eyes
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
ROW_INCHES = 0.34


def draw_changes(evaluation: Evaluation) -> bytes | None:
    """PNG of :func:`changes_figure`; None if there is no change to draw."""
    figure = changes_figure(evaluation.scans, evaluation.methods)
    if figure is None:
        return None
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def changes_figure(scans: pd.DataFrame, methods: list[str]) -> Figure | None:
    """One panel a metric, one row a site; each scan's change in percent as a dot, the site's median as a bar.

    None if there is no change to draw.
    """
    scans = scans.assign(site=scans["site"].fillna("no site"))
    sites = sorted(scans["site"].unique(), reverse=True)
    keys = shown_metrics("image")
    if not any(_percent(scans, key).notna().any() for key in keys):
        return None
    height = 1.3 + ROW_INCHES * len(sites) * max(1, len(methods) / 2)
    figure = Figure(figsize=(12.5, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(keys), sharey=True)
    for panel, key in zip(panels, keys, strict=True):
        _draw_panel(panel, scans.assign(change=_percent(scans, key)), sites, methods)
        panel.set_title(f"{long_name(key)}\n({hint(key)})", fontsize=10)
        panel.set_xlabel("change, %", fontsize=9)
    panels[0].set_yticks(range(len(sites)), [_label(scans, site) for site in sites], fontsize=8)
    panels[0].set_ylim(-0.6, len(sites) - 0.4)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
    return figure


def _percent(scans: pd.DataFrame, key: str) -> pd.Series:
    before, after = (scans[f"{key}_{part}"].astype(float) for part in ("before", "after"))
    return 100 * (after - before) / before.abs().where(before != 0)


def _label(scans: pd.DataFrame, site: str) -> str:
    return f"{site} ({len(scans[scans['site'] == site][['folder', 'scan']].drop_duplicates())})"


def _draw_panel(panel, scans: pd.DataFrame, sites: list[str], methods: list[str]) -> None:
    panel.axvline(0, color="#888", linewidth=0.8)
    for border in range(1, len(sites)):
        panel.axhline(border - 0.5, color="#e5e5e5", linewidth=0.6)
    step = 0.7 / len(methods)
    for number, method in enumerate(methods):
        color = COLORS[number % len(COLORS)]
        shift = step * ((len(methods) - 1) / 2 - number)  # the first method above
        for y, site in enumerate(sites):
            changes = scans[(scans["site"] == site) & (scans["method"] == method)]["change"].dropna()
            label = method if y == 0 else None
            panel.plot(
                changes, np.full(len(changes), y + shift), "o", color=color, ms=3.5, alpha=0.45, mew=0, label=label
            )
            if len(changes):
                middle = changes.median()
                panel.plot([middle] * 2, [y + shift - step / 2.4, y + shift + step / 2.4], color=color, linewidth=2)
    panel.tick_params(axis="x", labelsize=8)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right"]].set_visible(False)
