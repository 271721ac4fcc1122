"""The plots of a cohort's report for papers: PNG and SVG, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from biascorr_pydra.bids import make_folder
from biascorr_pydra.images.files import write_bytes
from biascorr_pydra.report.study.figure import COLORS, ROW_INCHES, changes_figure
from biascorr_pydra.report.table import hint, image_keys, long_name

from .findings import Findings, frame
from .site_differences import ALL_SITES

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

__all__ = ["write_figures"]

BEFORE_COLOR = "#7a7a7a"
MARKERS = ("o", "s", "D", "^", "P", "*")
DPI = 200
#: Texts stay texts in the SVG, and the same figures give the same bytes.
STYLE: dict[RcKeyType, Any] = {"svg.fonttype": "none", "svg.hashsalt": "biascorr_pydra"}


def write_figures(findings: Findings, folder: str | Path) -> list[Path]:
    """Write each figure as ``folder/NAME.png`` and ``folder/NAME.svg``; the files.

    For each contrast: ``changes`` (by site and method), one of values by site for every metric, ``site_differences``,
    and ``run_time``. What has no numbers is not drawn.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    folder, written = Path(folder), []
    make_folder(folder)
    with mpl.rc_context(STYLE):
        for name, figure in _figures(findings):
            for kind in ("png", "svg"):
                stream = io.BytesIO()
                figure.savefig(stream, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
                written.append(folder / f"{name}.{kind}")
                write_bytes(written[-1], stream.getvalue())
    return written


def _figures(findings: Findings) -> Iterator[tuple[str, Figure]]:
    results = findings.counted.results
    if not results:
        return
    for suffix, scans in frame(results).groupby("suffix", sort=True):
        safe = "".join(character if character.isalnum() else "_" for character in suffix)
        methods = list(dict.fromkeys(scans["method"]))
        figure = changes_figure(scans, methods)
        if figure is not None:
            yield f"changes_{safe}", figure
        for key in image_keys(results):
            if f"{key}_after" in scans and scans[f"{key}_after"].notna().any():
                yield f"{key}_{safe}", _values(scans, key, methods)
        rows = [row for row in findings.site_differences if row["suffix"] == suffix and row["site"] != ALL_SITES]
        if rows:
            yield f"site_differences_{safe}", _differences(pd.DataFrame(rows), methods)
        times = {m: _times(results, suffix, m) for m in methods}
        if any(len(values) for values in times.values()):
            yield f"run_time_{safe}", _run_time(times)


def _new(rows: float, width: float = 7.0) -> tuple[Figure, mpl.axes.Axes]:
    figure = Figure(figsize=(width, 1.2 + rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _values(scans: pd.DataFrame, key: str, methods: list[str]) -> Figure:
    """Box plots of one metric, a row a site: before, and after each method."""
    scans = scans.assign(site=scans["site"].fillna("no site"))
    sites = sorted(scans["site"].unique(), reverse=True)
    once = scans.drop_duplicates(["folder", "scan"])
    groups = [("before", once, f"{key}_before", BEFORE_COLOR)]
    groups += [(m, scans[scans["method"] == m], f"{key}_after", _color(i)) for i, m in enumerate(methods)]
    figure, axes = _new(0.5 * ROW_INCHES * len(sites) * len(groups))
    step = 0.8 / len(groups)
    for number, (name, rows, column, color) in enumerate(groups):
        values = [rows.loc[rows["site"] == site, column].dropna().to_numpy(float) for site in sites]
        places = np.arange(len(sites)) + step * ((len(groups) - 1) / 2 - number)
        line = {"color": color, "linewidth": 1}
        axes.boxplot(
            values,
            positions=places,
            widths=0.8 * step,
            orientation="horizontal",
            boxprops=line,
            medianprops={"color": color, "linewidth": 2},
            whiskerprops=line,
            capprops=line,
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": color},
        )
        axes.plot([], [], color=color, label=name)
    counts = once["site"].value_counts()
    axes.set_yticks(range(len(sites)), [f"{site} ({counts[site]})" for site in sites], fontsize=8)
    axes.set_ylim(-0.6, len(sites) - 0.4)
    axes.set_xlabel(f"{long_name(key)}{f' ({hint(key)})' if hint(key) else ''}")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def _differences(rows: pd.DataFrame, methods: list[str]) -> Figure:
    """A row a site: its divergence from the other sites before, and after each method."""
    sites = sorted(rows["site"].unique(), reverse=True)
    place = {site: i for i, site in enumerate(sites)}
    figure, axes = _new(0.7 * ROW_INCHES * len(sites))
    before = rows.drop_duplicates("site")
    axes.plot(before["jsd_before"], before["site"].map(place), "o", mfc="none", color=BEFORE_COLOR, label="before")
    for number, method in enumerate(methods):
        mine = rows[rows["method"] == method]
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(mine["jsd_after"], mine["site"].map(place), marker, ms=5, color=_color(number), label=method)
    axes.set_yticks(range(len(sites)), [f"{s} ({rows.loc[rows['site'] == s, 'n_scans'].max()})" for s in sites])
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlim(left=0)
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.set_xlabel("Jensen–Shannon divergence from the other sites")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def _times(results, suffix: str, method: str) -> list[float]:
    times = (r.number("runtime_s", "correct") for r in results if (r.suffix, r.method) == (suffix, method))
    return [value for value in times if value is not None]


def _run_time(times: dict[str, list[float]]) -> Figure:
    methods = list(times)[::-1]
    figure, axes = _new(2 * ROW_INCHES * len(methods))
    axes.boxplot(
        [times[method] for method in methods], orientation="horizontal", widths=0.5, flierprops={"marker": "."}
    )
    axes.set_yticks(range(1, len(methods) + 1), methods)
    axes.set_xlim(left=0)
    axes.set_xlabel("run time of the correction, s a scan")
    return figure
