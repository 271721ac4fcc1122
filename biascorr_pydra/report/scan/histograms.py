"""Histograms of one scan and method: tissues before and after, and the joint histogram of before and after, as PNG.

Drawn through matplotlib's objects on the Agg canvas, so that no global state is touched.
"""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from biascorr_pydra.metrics import DSEG_LABELS

__all__ = ["counts_of", "draw_histograms", "histogram_edges", "joint_counts"]

BINS = 128
MOST_VALUES = 200_000  # from which the levels of an image stored as integers are known
SIZE_IN, DPI, FONT_PT = (10.8, 3.7), 100, 11
LEFT, RIGHT = (0.01, 0.17, 0.62, 0.73), (0.72, 0.17, 0.27, 0.73)  # an automatic layout takes as long as the rest
#: By tissue: color (Okabe and Ito) and line.
TISSUES = {"CSF": ("#009E73", "-."), "GM": ("#D55E00", "--"), "WM": ("#0072B2", "-")}


def draw_histograms(
    before: np.ndarray, after: np.ndarray, labels: np.ndarray | None, limits: tuple[float, float]
) -> bytes:
    """Distributions in the mask of the acquired (areas) and the corrected image (lines), and both jointly.

    Parameters
    ----------
    before, after : float arrays (N,), intensities in the mask
    labels : int array (N,), the segmentation's labels, or None
    limits : ends of the gray scale
    """
    low, high = min(0.0, limits[0]), limits[1] + 0.15 * (limits[1] - limits[0])
    edges = histogram_edges(before, low, high)
    figure = Figure(figsize=SIZE_IN, dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    _draw_tissues(figure.add_axes(LEFT), before, after, labels, edges)
    _draw_joint(figure.add_axes(RIGHT), before, after, np.linspace(low, high, BINS + 1))
    stream = io.BytesIO()
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(96, dither=Image.Dither.NONE).save(stream, "png", optimize=True)
    return stream.getvalue()


def histogram_edges(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Edges of up to 128 bins from about ``low`` to ``high``.

    Where ``values`` has few levels, as in an image stored as integers, each bin holds equally many of them, else the
    histogram would show a comb.
    """
    fine = (high - low) * 1e-5
    inside = values[(values >= low) & (values <= high)]
    inside = inside[:: max(1, inside.size // MOST_VALUES)]
    levels = np.unique(np.round(inside / fine)) * fine
    if 2 < levels.size < 16 * BINS:
        gaps = np.diff(levels)
        step = (levels[-1] - levels[0]) / np.rint(gaps / np.median(gaps)).sum()
        width = step * int(np.ceil((high - low) / BINS / step))
        return np.arange(levels[0] - step / 2, high + width, width)
    return np.linspace(low, high, BINS + 1)


def _bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Number of each value's bin among bins of one width (numpy sorts, which takes longer than all the rest)."""
    with np.errstate(invalid="ignore"):
        bins = np.floor((values - edges[0]) / (edges[1] - edges[0]))
    return np.where((bins >= 0) & (bins < edges.size - 1), bins, -1).astype(np.int64)


def counts_of(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Values in each bin, array (bins,); what is outside of the bins, or not finite, is not counted."""
    return np.bincount(_bins(values, edges) + 1, minlength=edges.size)[1:]


def joint_counts(before: np.ndarray, after: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Voxels by their values after (rows) and before (columns), array (bins, bins)."""
    x, y, n = _bins(before, edges), _bins(after, edges), edges.size - 1
    inside = (x >= 0) & (y >= 0)
    return np.bincount(y[inside] * n + x[inside], minlength=n * n).reshape(n, n)


def _draw_tissues(axes, before: np.ndarray, after: np.ndarray, labels: np.ndarray | None, edges: np.ndarray) -> None:
    centers = (edges[1:] + edges[:-1]) / 2
    if labels is None:
        parts = {"mask": (np.ones(before.size, bool), "#0072B2", "-")}
    else:
        inside_of = {name: labels == DSEG_LABELS[name] for name in TISSUES}
        parts = {name: (inside_of[name], *style) for name, style in TISSUES.items() if inside_of[name].any()}
    for name, (inside, color, line) in parts.items():
        for values, is_before in ((before, True), (after, False)):
            counts = counts_of(values[inside], edges) / max(before.size, 1)
            if is_before:
                axes.fill_between(centers, counts, color=color, alpha=0.28, linewidth=0, label=f"{name} before")
            else:
                axes.plot(centers, counts, color=color, linestyle=line, linewidth=2, label=f"{name} after")
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None), yticks=[])
    axes.set_xlabel("intensity", fontsize=FONT_PT)
    axes.set_title(
        "Tissues: before (areas) and after (lines)" if labels is not None else "Before and after", loc="left"
    )
    axes.legend(frameon=False, fontsize=FONT_PT - 1, ncols=2 if len(parts) > 1 else 1, loc="upper left")
    _plain(axes)


def _draw_joint(axes, before: np.ndarray, after: np.ndarray, edges: np.ndarray) -> None:
    counts = joint_counts(before, after, edges)
    shown = np.ma.masked_less(counts, 1)
    axes.pcolormesh(edges, edges, shown, norm=LogNorm(1, max(float(counts.max()), 2.0)), cmap="cividis_r")
    axes.plot(edges[[0, -1]], edges[[0, -1]], color="black", linewidth=1, linestyle=":")
    axes.set(xlim=edges[[0, -1]], ylim=edges[[0, -1]], aspect="equal")
    axes.set_xlabel("before", fontsize=FONT_PT)
    axes.set_ylabel("after", fontsize=FONT_PT)
    axes.set_title("Joint (log counts)", loc="left")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    _plain(axes)


def _plain(axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=FONT_PT)
    axes.title.set_fontsize(FONT_PT + 0.5)
    axes.spines[["right", "top"]].set_visible(False)
