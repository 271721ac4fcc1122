"""Mosaics of a scan's slices, as JPEG: a column for each plane, one scale in mm, letters at the edges, a scale bar.

All mosaics of a scan have the same size and the same slices at the same places, so that they can be laid over one
another.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
from contourpy import contour_generator
from matplotlib import colormaps
from PIL import Image, ImageDraw

from .geometry import AXES, EDGES, PLANES
from .texts import font
from .volumes import Lines, ScanImages, Slices

__all__ = [
    "OUTLINES",
    "contours",
    "draw_anatomy",
    "draw_field",
    "draw_tissues",
    "edge_labels",
    "field_colors",
    "outlined",
]

WIDTH_PX, GAP_PX, BAR_PX = 1080, 6, 54
SUPERSAMPLED, LINE_PX = 2, 2  # lines are drawn at twice the size
QUALITY = 84
LETTER, BLACK, WHITE, GRAY = (255, 216, 77), (0, 0, 0), (255, 255, 255), (150, 150, 150)
#: Contours by what they enclose, in colors of Okabe and Ito.
OUTLINES = {"brain mask": "#E69F00", "white matter": "#56B4E9", "gray matter": "#CC79A7", "CSF": "#009E73"}
#: Labels that are outlined. In a whole segmentation, gray matter is what lies between white matter and CSF.
LABELS = {"white matter": 2, "CSF": 3}
JUDGES_LABELS = {"white matter": 2, "gray matter": 1}
#: How dark the anatomy may make the colors of a field laid over it.
SHADE = 0.45


def draw_anatomy(images: ScanImages, slices: Slices) -> bytes:
    """Intensities on the scan's gray scale."""
    low, high = images.gray_scale
    ticks = [(part, _short(low + part * (high - low))) for part in (0.0, 0.5, 1.0)]
    return _mosaic(images, slices, _gray(images.gray_scale), {}, _gray((0.0, 1.0)), ticks)


def draw_field(images: ScanImages, bias: Slices, anatomy: Slices | None, scale: tuple[float, float]) -> bytes:
    """A field in colors, laid over the acquired image where there is one, with the mask's outline.

    From blue (too dark) by white (1) to red (too bright), on a logarithmic scale symmetric around 1.
    """
    top = scale[1]
    outline = {BLACK: _mask_outlines(images)}
    ticks = [(part, f"{top ** (2 * part - 1):.3g}") for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
    colored = field_colors(top)
    shades = {} if anatomy is None else {id(b): a for p in PLANES for b, a in zip(bias[p], anatomy[p], strict=True)}

    def paint(panel: np.ndarray) -> np.ndarray:
        colors = colored(panel)
        if id(panel) in shades:
            darkness = np.float32(SHADE / 255) * (255 - _gray(images.gray_scale)(shades[id(panel)]))
            colors = (colors * (1 - darkness)[..., None]).astype(np.uint8)
        return colors

    return _mosaic(images, bias, paint, outline, lambda ramp: colored(top ** (2 * ramp - 1)), ticks)


def draw_tissues(images: ScanImages, slices: Slices) -> bytes:
    """Outlines of mask, white matter and CSF on an image; gray matter is what lies between the last two."""
    contours = {}
    if images.tissues is not None:
        for name, label in outlined(images).items():
            labelled = {plane: [part == label for part in images.tissues[plane]] for plane in PLANES}
            contours[_rgb(OUTLINES[name])] = _outlines(labelled)
    if images.masked:
        contours[_rgb(OUTLINES["brain mask"])] = _mask_outlines(images)
    low, high = images.gray_scale
    ticks = [(part, _short(low + part * (high - low))) for part in (0.0, 0.5, 1.0)]
    return _mosaic(images, slices, _gray(images.gray_scale), contours, _gray((0.0, 1.0)), ticks)


def outlined(images: ScanImages) -> dict[str, int]:
    """The labels of the segmentation whose outlines are drawn, by name; none where there is no segmentation."""
    if images.tissues is None:
        return {}
    return JUDGES_LABELS if images.of_judge else LABELS


# --- the layout

#: Colors of a slice's voxels, uint8 (rows, columns) or (rows, columns, 3). What is painted is enlarged, not the values:
#: that takes a quarter of the time, and shows the same.
Paint = Callable[[np.ndarray], np.ndarray]


def _mosaic(
    images: ScanImages, slices: Slices, paint: Paint, lines: Mapping[tuple, Lines], bar: Paint, ticks: list
) -> bytes:
    view, _ = images.chosen()
    sizes = {plane: view.size_mm(plane) for plane in PLANES}
    scale = (WIDTH_PX - 2 * GAP_PX) / sum(width for width, _ in sizes.values())
    row_px = round(max(tall for _, tall in sizes.values()) * scale) + GAP_PX
    height = view.n_rows * row_px
    canvas = Image.new("RGB", (WIDTH_PX, height + BAR_PX), BLACK)
    overlay = {color: Image.new("L", (WIDTH_PX * SUPERSAMPLED, (height + BAR_PX) * SUPERSAMPLED)) for color in lines}
    texts = []
    left = 0.0
    for plane in PLANES:
        width, tall = (round(mm * scale) for mm in sizes[plane])
        for row, panel in enumerate(slices[plane]):
            corner = round(left), row * row_px + (row_px - GAP_PX - tall) // 2
            canvas.paste(_resized(paint(panel), (width, tall)), corner)
            for color, contours in lines.items():
                _draw_lines(overlay[color], contours[plane][row], panel.shape, corner, (width, tall))
            texts += edge_labels(plane, row, images.position_mm, corner, (width, tall))
        left += sizes[plane][0] * scale + GAP_PX
    for color, drawn in overlay.items():
        canvas.paste(color, (0, 0), drawn.reduce(SUPERSAMPLED))
    pen = ImageDraw.Draw(canvas)
    for at, text, anchor, color, size in texts:
        pen.text(at, text, font=font(size, bold=True), anchor=anchor, fill=color, stroke_width=2, stroke_fill=BLACK)
    _draw_bar(canvas, height, bar, ticks)
    stream = io.BytesIO()
    canvas.save(stream, "jpeg", quality=QUALITY)  # optimized tables take twice as long, for 3% of the size
    return stream.getvalue()


def edge_labels(plane: str, row: int, position_mm, corner: tuple[int, int], size: tuple[int, int]) -> list[tuple]:
    """Letters at the edges of the first row's slices, and at each slice where it is.

    Parameters
    ----------
    plane : "axial", "coronal" or "sagittal"
    row : number of the slice
    position_mm : by axis, where the slices are
    corner, size : of the slice in the picture, (across, down) in pixels

    Returns
    -------
    list of (place in pixels, text, anchor, color, font size)
    """
    (x, y), (width, tall) = corner, size
    axis = AXES[plane]
    named = f"{'xyz'[axis]} {position_mm[axis][row]:.0f}"
    made = [((x + width - 5, y + tall - 5), named, "rs", WHITE, 17)]
    if row == 0:
        places = [((x + 5, y + tall // 2), "lm"), ((x + width - 5, y + tall // 2), "rm")]
        places += [((x + width // 2, y + 3), "mt"), ((x + width // 2, y + tall - 5), "ms")]
        made += [(at, letter, anchor, LETTER, 22) for letter, (at, anchor) in zip(EDGES[plane], places, strict=True)]
    return made


def _draw_bar(canvas: Image.Image, top: int, bar: Paint, ticks: list[tuple[float, str]]) -> None:
    left, width, tall = WIDTH_PX // 4, WIDTH_PX // 2, 16
    ramp = np.linspace(0, 1, width, dtype=np.float32)[None].repeat(tall, 0)
    canvas.paste(Image.fromarray(bar(ramp)), (left, top + 8))
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((left - 1, top + 7, left + width, top + 8 + tall), outline=GRAY)
    for part, text in ticks:
        x = left + part * (width - 1)
        pen.line((x, top + 8 + tall, x, top + 12 + tall), fill=WHITE, width=2)
        pen.text((x, top + 14 + tall), text, font=font(17, bold=True), anchor="mt", fill=WHITE)


# --- painting a slice


def _gray(limits: tuple[float, float]) -> Paint:
    low, high = limits

    def paint(panel: np.ndarray) -> np.ndarray:
        values = np.nan_to_num(panel, nan=low, posinf=high, neginf=low)
        return (np.clip((values - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)

    return paint


def field_colors(top: float) -> Paint:
    """What paints a field in colors: blue at ``1 / top``, white at 1, red at ``top``; black where it is undefined."""
    # More colors than the default 256, whose steps would show as bands in a smooth field.
    table = (colormaps["RdBu_r"].resampled(2048)(np.arange(2048))[:, :3] * 255 + 0.5).astype(np.uint8)

    def paint(panel: np.ndarray) -> np.ndarray:
        defined = np.isfinite(panel) & (panel > 0)
        logs = np.log(np.where(defined, panel, 1.0)) / math.log(top)
        painted = table[(np.clip(logs / 2 + 0.5, 0, 1) * 2047 + 0.5).astype(np.int32)]
        painted[~defined] = BLACK
        return painted

    return paint


def _resized(painted: np.ndarray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(painted).resize(size, Image.Resampling.BILINEAR)


# --- contours


def _outlines(masks: Slices) -> Lines:
    """Contours of boolean slices, in pixels of the slice; the slice's own edge is no contour."""
    return {plane: [contours(mask) for mask in masks[plane]] for plane in PLANES}


def _mask_outlines(images: ScanImages) -> Lines:
    """Those of the mask, which stand in most of a scan's pictures."""
    if images.mask_outlines is None:
        images.mask_outlines = _outlines(images.chosen()[1])
    return images.mask_outlines


def contours(mask: np.ndarray) -> list[np.ndarray]:
    """The borders of a boolean slice as lines, arrays (N, 2) of column and row; 0 is the middle of the first voxel."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not rows.size:
        return []
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    part = mask[top : rows[-1] + 2, left : columns[-1] + 2]
    if min(part.shape) < 2:  # a picture of one row has no inside
        return []
    lines = cast("list[np.ndarray]", contour_generator(z=part.astype(np.float32)).lines(0.5))  # an array a line
    corner = np.array([left, top])
    return [line + corner for line in lines]


def _draw_lines(overlay: Image.Image, lines: list[np.ndarray], shape, corner, size) -> None:
    pen = ImageDraw.Draw(overlay)
    scale = np.array([size[0] / shape[1], size[1] / shape[0]])
    for line in lines:
        if len(line) > 1:
            points = ((line + 0.5) * scale + corner) * SUPERSAMPLED
            pen.line(points.ravel().tolist(), fill=255, width=LINE_PX)


# --- texts


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"
