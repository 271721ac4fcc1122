"""Histograms of one scan and method: tissues before and after, and the joint histogram of before and after, as PNG.

The counting is here, the drawing in :mod:`biascorr_pydra.report.scan.plots`.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from biascorr_pydra.metrics import DSEG_LABELS

from .plots import Curve, draw_curves, draw_joint

__all__ = ["counts_of", "draw_histograms", "histogram_edges", "joint_counts"]

BINS = 128
MOST_VALUES = 200_000  # from which the levels of an image stored as integers are known
MOST_COUNTED = 600_000  # evenly taken out of more: a curve of 128 bins is then known to a pixel
SIZE_PX = (1080, 370)
COLORS = 96
N_LABELS = max(DSEG_LABELS.values())
LEFT, RIGHT = (11, 37, 669, 270), (803, 51, 256, 256)  # of the two plots: from the left, from the top, width, height
#: By tissue: color (Okabe and Ito) and dashes in pixels, drawn and left out by turns.
TISSUES = {
    "CSF": ("#009E73", (18, 5, 4, 5)),
    "GM": ("#D55E00", (11, 5)),
    "WM": ("#0072B2", ()),
}


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
    picture = Image.new("RGB", SIZE_PX, "white")
    title = "Tissues: before (areas) and after (lines)" if labels is not None else "Before and after"
    draw_curves(picture, LEFT, edges, _curves(before, after, labels, edges), title)
    joint_edges = np.linspace(low, high, BINS + 1)
    draw_joint(picture, RIGHT, joint_edges, joint_counts(before, after, joint_edges))
    stream = io.BytesIO()
    picture.quantize(COLORS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(stream, "png")
    return stream.getvalue()


def _curves(before: np.ndarray, after: np.ndarray, labels: np.ndarray | None, edges: np.ndarray) -> list[Curve]:
    """A curve for each tissue, as parts of all voxels; one for all of them where there are no labels."""
    step = max(1, before.size // MOST_COUNTED)
    before, after = before[::step], after[::step]
    labels = labels if labels is None else labels[::step]
    total = max(before.size, 1)
    if labels is None:
        counts = [counts_of(values, edges) / total for values in (before, after)]
        return [Curve("mask", *TISSUES["WM"], *counts)]
    by_label = [_counts_by_label(values, labels, edges) / total for values in (before, after)]
    return [
        Curve(name, *style, *(counts[DSEG_LABELS[name]] for counts in by_label))
        for name, style in TISSUES.items()
        if (labels == DSEG_LABELS[name]).any()
    ]


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
    """Number of each value's bin among bins of one width, from 1; 0 for what is outside of them or not finite.

    numpy's own histogram sorts, which takes longer than all the rest.
    """
    with np.errstate(invalid="ignore"):
        bins = (values - edges[0]) * (1 / (edges[1] - edges[0])) + 1
        bins[~((bins >= 1) & (bins < edges.size))] = 0
        return bins.astype(np.int32)


def counts_of(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Values in each bin, array (bins,); what is outside of the bins, or not finite, is not counted."""
    return np.bincount(_bins(values, edges), minlength=edges.size)[1:]


def _counts_by_label(values: np.ndarray, labels: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """As :func:`counts_of` for each label from 0 to 3, array (4, bins)."""
    known = np.where((labels >= 0) & (labels <= N_LABELS), labels, 0).astype(np.int32)
    counts = np.bincount(known * edges.size + _bins(values, edges), minlength=(N_LABELS + 1) * edges.size)
    return counts.reshape(N_LABELS + 1, edges.size)[:, 1:]


def joint_counts(before: np.ndarray, after: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Voxels by their values after (rows) and before (columns), array (bins, bins)."""
    counts = np.bincount(_bins(after, edges) * edges.size + _bins(before, edges), minlength=edges.size**2)
    return counts.reshape(edges.size, edges.size)[1:, 1:]
