"""Pictures of one scan: acquired, corrected and field in three planes, and the histograms of the brain.

Images are reordered to RAS+ (nearest axes; nothing is resampled) and shown in neurological convention: the subject's
left is on the left. Acquired and corrected share one intensity scale, which is fair because the field has mean 1 over
the mask; the fields of all methods share one logarithmic scale, symmetric around 1. Figures are drawn through
matplotlib's objects on the Agg canvas, so that no global state is touched.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from PIL import Image

from .. import image
from ..errors import GridMismatchError, InvalidImageError

__all__ = [
    "ScanImages",
    "View",
    "draw_histogram",
    "draw_strip",
    "field_limits",
    "histogram_edges",
    "intensity_limits",
    "planes",
]

PLANES = ("axial", "coronal", "sagittal")
#: Letters at the left, right, top and bottom edge of each plane.
EDGES = {"axial": "LRAP", "coronal": "LRSI", "sagittal": "PASI"}
INTENSITY_PERCENTILES = (0.5, 99.5)
FIELD_PERCENTILE = 0.5
#: Upper ends of the field's scale; a nearly flat field is not blown up to full color.
FIELD_STEPS = (1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 30.0, 100.0)
MARGIN_MM = 14.0
OFF_MIDLINE = 0.1  # of the mask's width: beside the fissure, where a sagittal slice shows tissue

WIDTH_PX, GAP_PX, BAR_PX, DPI = 960, 8, 104, 100
FONT_PT = 15.0
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito
BINS = 128
DASHES = ("-", (0, (5, 1.5)), "-.", (0, (1, 1)))


# --- geometry


@dataclass(frozen=True)
class View:
    """Which slices of a RAS+ array are shown, and how much of them: chosen once per scan, from its mask.

    Attributes
    ----------
    at : three ints
        Indices of the sagittal, coronal and axial slice.
    start, stop : three ints each
        Box shown, in voxels.
    voxel_size_mm : three floats
    """

    at: tuple[int, int, int]
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    voxel_size_mm: tuple[float, float, float]

    @classmethod
    def through(cls, mask: np.ndarray, voxel_size_mm: tuple[float, float, float]) -> View:
        """Slices through the middle of a mask (I, J, K) in RAS+ order, and a box around it with a margin."""
        first, last, center = [], [], []
        for axis in range(3):
            profile = mask.sum(axis=tuple(other for other in range(3) if other != axis))
            inside = np.flatnonzero(profile)
            first.append(int(inside[0]))
            last.append(int(inside[-1]))
            center.append(float(np.average(np.arange(profile.size), weights=profile)))
        center[0] -= OFF_MIDLINE * (last[0] - first[0])
        margin = [round(MARGIN_MM / size) for size in voxel_size_mm]
        return cls(
            tuple(int(np.clip(round(c), a, b)) for c, a, b in zip(center, first, last, strict=True)),
            tuple(max(a - m, 0) for a, m in zip(first, margin, strict=True)),
            tuple(min(b + m + 1, n) for b, m, n in zip(last, margin, mask.shape, strict=True)),
            tuple(voxel_size_mm),
        )

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Size of the box."""
        return tuple((b - a) * s for a, b, s in zip(self.start, self.stop, self.voxel_size_mm, strict=True))


def planes(data: np.ndarray, view: View) -> list[np.ndarray]:
    """The axial, coronal and sagittal slice of a RAS+ array, as shown: first row on top, first column at the left.

    Left, left and posterior are at the left; anterior, superior and superior on top.
    """
    box = tuple(slice(a, b) for a, b in zip(view.start, view.stop, strict=True))
    x, y, z = view.at
    return [
        data[box[0], box[1], z].T[::-1],
        data[box[0], y, box[2]].T[::-1],
        data[x, box[1], box[2]].T[::-1],
    ]


# --- scales


def intensity_limits(acquired: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """The one gray scale for the acquired and the corrected images: robust range of the acquired one in the mask."""
    values = acquired[mask & np.isfinite(acquired)]
    low, high = (float(v) for v in np.percentile(values, INTENSITY_PERCENTILES)) if values.size else (0.0, 1.0)
    return (low, high) if high > low else (low, low + 1.0)


def field_limits(fields: list[np.ndarray]) -> tuple[float, float]:
    """The one scale for all methods' fields, (1/m, m): m covers 99% of each field's values in its mask.

    ``fields`` are arrays of any shape, the values inside the masks; values that are not positive and finite are left
    out.
    """
    largest = 1.0
    for values in fields:
        values = values[np.isfinite(values) & (values > 0)]
        if values.size:
            spread = np.abs(np.log(np.percentile(values, (FIELD_PERCENTILE, 100 - FIELD_PERCENTILE))))
            largest = max(largest, float(np.exp(spread.max())))
    top = next((step for step in FIELD_STEPS if largest <= step), FIELD_STEPS[-1])
    return 1 / top, top


# --- images of one scan


@dataclass(frozen=True)
class MethodImages:
    """Slices and brain values of one method's result; what its files do not give is None."""

    acquired: list[np.ndarray] | None
    corrected: list[np.ndarray] | None
    bias: list[np.ndarray] | None
    outline: list[np.ndarray]
    brain: dict[str, np.ndarray]


@dataclass
class ScanImages:
    """What the pictures of one scan need, read method by method; whole volumes are not kept.

    The first method that can be read decides slices, box and intensity scale for all.
    """

    view: View | None = None
    limits: tuple[float, float] | None = None
    position_mm: tuple[float, float, float] | None = None
    masked: bool = True
    methods: dict[str, MethodImages] = field(default_factory=dict)
    _shape: tuple[int, ...] = ()

    def add(self, method: str, files: dict[str, Path]) -> None:
        """Read one method's images.

        Parameters
        ----------
        files : dict
            Paths by "corrected", "bias" and "mask"; those that do not exist are left out.

        Raises
        ------
        BiasCorrError
            An image cannot be read, is not 3-D, or lies on another grid than the scan's other images.
        """
        volumes = {key: _read(files[key]) for key in ("corrected", "bias", "mask") if key in files}
        for key, img in volumes.items():
            self._check_grid(img, next(iter(volumes.values())), files[key])
        if "corrected" not in volumes and "bias" not in volumes:
            return
        arrays = {key: np.asarray(img.dataobj, np.float32).reshape(img.shape[:3]) for key, img in volumes.items()}
        corrected, bias = arrays.get("corrected"), arrays.get("bias")
        acquired = corrected * bias if corrected is not None and bias is not None else None
        mask = self._mask(arrays)
        if self.view is None:
            img = next(iter(volumes.values()))
            self.view = View.through(mask, image.voxel_size_mm(img))
            self.position_mm = tuple(float(v) for v in nib.affines.apply_affine(img.affine, self.view.at))
            self._shape = mask.shape
        if self.limits is None and acquired is not None:
            self.limits = intensity_limits(acquired, mask)
        shown = {"acquired": acquired, "corrected": corrected, "bias": bias}
        self.methods[method] = MethodImages(
            **{key: None if array is None else planes(array, self.view) for key, array in shown.items()},
            outline=planes(mask, self.view),
            brain={key: array[mask] for key, array in shown.items() if array is not None},
        )

    def _check_grid(self, img, first, file: Path) -> None:
        if not image.same_grid(img, first):
            raise GridMismatchError("not on the grid of the other images of this scan", file=file.name, value=img.shape)
        if self._shape and img.shape[:3] != self._shape:
            raise GridMismatchError(
                "not on the grid of the other methods' images", file=file.name, value=f"{img.shape}, not {self._shape}"
            )

    def _mask(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """The brain mask, or where there is none the head, or where there is no image everything."""
        if "mask" in arrays and (arrays["mask"] > 0).any():
            return arrays["mask"] > 0
        self.masked = False
        some = arrays.get("corrected")
        if some is None or not (some > 0).any():
            return np.ones(next(iter(arrays.values())).shape, bool)
        return image.detect_head(np.nan_to_num(some, posinf=0, neginf=0))

    @property
    def field_scale(self) -> tuple[float, float]:
        return field_limits([images.brain["bias"] for images in self.methods.values() if "bias" in images.brain])


def _read(file: Path) -> nib.Nifti1Image:
    img = image.load(file)
    if len(img.shape) < 3 or any(n != 1 for n in img.shape[3:]) or 0 in img.shape:
        raise InvalidImageError("a 3-D image is needed", file=file.name, value=f"shape {img.shape}")
    if img.get_data_dtype().kind not in "iufb" or not np.isfinite(img.affine).all():
        raise InvalidImageError("real numbers and a finite affine are needed", file=file.name)
    return nib.as_closest_canonical(img)


# --- drawing


def draw_strip(panels: list[np.ndarray], view: View, limits: tuple[float, float], *, outline=None) -> bytes:
    """Three planes side by side at one scale in mm, with orientation letters and a scale bar: a JPEG.

    Parameters
    ----------
    panels : three arrays
        As from :func:`planes`.
    limits : two floats
        Ends of the scale, which is gray and linear, or for a field logarithmic and diverging.
    outline : three boolean arrays, optional
        Given for a field: its mask, drawn as a line. Without it the panels are intensities.
    """
    x, y, z = view.extent_mm
    sizes = [(x, y), (x, z), (y, z)]
    scale = (WIDTH_PX - BAR_PX - 3 * GAP_PX) / sum(width for width, _ in sizes)
    height = round(max(tall for _, tall in sizes) * scale)
    figure = _figure(height, "black")
    is_field = outline is not None
    if is_field:
        # More colors than the default 256, whose steps would show as bands in a smooth field.
        style = {"cmap": colormaps["RdBu_r"].resampled(2048), "norm": LogNorm(*limits, clip=True)}
    else:
        style = {"cmap": "gray", "norm": Normalize(*limits, clip=True)}
    left = 0.0
    for i, (width, tall) in enumerate(sizes):
        box = (left / WIDTH_PX, 0.5 - tall * scale / 2 / height, width * scale / WIDTH_PX, tall * scale / height)
        axes = figure.add_axes(box)
        axes.set_axis_off()
        panel = np.ma.masked_invalid(panels[i])
        if is_field:
            panel = np.ma.masked_where(panel <= 0, panel)
        shown = axes.imshow(panel, extent=(0, width, 0, tall), aspect="auto", interpolation="auto", **style)
        if is_field and outline[i].any() and not outline[i].all():
            rows, cols = outline[i].shape
            centers = (np.arange(cols) + 0.5) * width / cols, (rows - np.arange(rows) - 0.5) * tall / rows
            axes.contour(*centers, outline[i].astype(float), levels=[0.5], colors="black", linewidths=1.3)
        _letters(axes, EDGES[PLANES[i]], dark=is_field)
        left += width * scale + GAP_PX
    _scale_bar(figure, shown, limits, is_field)
    return _encode(figure, "jpeg", quality=82, optimize=True)


def draw_histogram(brain: dict[str, np.ndarray], limits: tuple[float, float], aspect: float) -> bytes:
    """Intensity distributions inside the mask, acquired as an area and each method's result as a line: a PNG.

    ``brain`` maps labels to values, the acquired image first. The bins are common to all, from 0 or the gray scale's
    lower end to a little above its upper end.
    """
    low, high = limits
    edges = histogram_edges(next(iter(brain.values())), min(0.0, low), high + 0.15 * (high - low))
    centers = (edges[1:] + edges[:-1]) / 2
    figure = _figure(round(WIDTH_PX / aspect), "white")
    axes = figure.add_axes((0.03, 0.2, 0.95, 0.77))
    for i, (label, values) in enumerate(brain.items()):
        counts = np.histogram(values[np.isfinite(values)], edges)[0] / max(values.size, 1)
        if i == 0:
            axes.fill_between(centers, counts, color="#c4c4c4", label=label, linewidth=0)
        else:
            style = {"color": COLORS[(i - 1) % len(COLORS)], "linestyle": DASHES[(i - 1) % len(DASHES)]}
            axes.plot(centers, counts, linewidth=3, label=label, **style)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(labelsize=FONT_PT, width=1.5, length=6)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.set_xlabel("intensity in the mask", fontsize=FONT_PT)
    axes.legend(frameon=False, fontsize=FONT_PT, loc="best")
    return _encode(figure, "png", optimize=True)


def histogram_edges(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Edges of up to 128 bins from about ``low`` to ``high``.

    Where ``values`` has few levels, as in an image stored as integers, each bin holds equally many of them, else the
    histogram would show a comb.
    """
    fine = (high - low) * 1e-5
    inside = values[(values >= low) & (values <= high)]
    levels = np.unique(np.round(inside / fine)) * fine
    if 2 < levels.size < 16 * BINS:
        gaps = np.diff(levels)
        step = (levels[-1] - levels[0]) / np.rint(gaps / np.median(gaps)).sum()
        width = step * int(np.ceil((high - low) / BINS / step))
        return np.arange(levels[0] - step / 2, high + width, width)
    return np.linspace(low, high, BINS + 1)


def _figure(height_px: int, background: str) -> Figure:
    figure = Figure(figsize=(WIDTH_PX / DPI, max(height_px, 120) / DPI), dpi=DPI, facecolor=background)
    FigureCanvasAgg(figure)
    return figure


def _letters(axes, letters: str, *, dark: bool) -> None:
    places = ((0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center"))
    places += ((0.5, 0.985, "center", "top"), (0.5, 0.015, "center", "bottom"))
    for letter, (x, y, ha, va) in zip(letters, places, strict=True):
        axes.text(
            x, y, letter, ha=ha, va=va, transform=axes.transAxes, fontsize=FONT_PT, weight="bold",
            color="black" if dark else "#ffd84d",
            path_effects=[withStroke(linewidth=3, foreground="white" if dark else "black")],
        )  # fmt: skip


def _scale_bar(figure: Figure, shown, limits: tuple[float, float], is_field: bool) -> None:
    axes = figure.add_axes((1 - BAR_PX / WIDTH_PX, 0.1, 18 / WIDTH_PX, 0.8))
    bar = figure.colorbar(shown, cax=axes)
    if is_field:
        top = limits[1]
        ticks = [1 / top, top**-0.5, 1.0, top**0.5, top]
        formatter = FuncFormatter(lambda value, _: f"{value:.2f}" if top < 10 else f"{value:.2g}")
    else:
        ticks = list(np.linspace(*limits, 3))
        formatter = FuncFormatter(lambda value, _: _short(value))
    bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
    bar.ax.yaxis.set_major_formatter(formatter)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.tick_params(colors="white", labelsize=FONT_PT, width=1.5, length=4, pad=3)
    bar.outline.set_edgecolor("#888888")


def _short(value: float) -> str:
    """At most five characters wide, so that it fits beside the bar."""
    if value == 0 or 1 <= abs(value) < 99999.5:
        return f"{value:.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"
    return f"{value:.2g}" if abs(value) >= 0.001 and abs(value) < 1 else f"{value:.0e}"


def _encode(figure: Figure, kind: str, **options) -> bytes:
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    if kind == "png":
        picture = picture.quantize(64, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()
