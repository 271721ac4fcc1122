"""Two small plots, drawn straight into a picture: curves over areas, and a joint histogram.

matplotlib draws the same in a tenth of a second to a third, which was most of what a page took.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw

from .texts import font

__all__ = ["Curve", "draw_curves", "draw_joint"]

Box = tuple[int, int, int, int]  # from the left, from the top, width, height, in pixels

TEXT_PX, TITLE_PX, TICK_PX = 15, 16, 5
INK = (0, 0, 0)
AREA_ALPHA, LINE_PX, SUPERSAMPLED = 0.28, 3, 2
HEADROOM = 1.05
MOST_TICKS = 4
LEGEND_ROW_PX, LEGEND_KEY_PX, LEGEND_COLUMN_PX = 20, 30, 145


@dataclass(frozen=True)
class Curve:
    """One tissue before and after.

    Attributes
    ----------
    name : str
    color : as "#0072B2"
    dashes : pixels drawn and left out by turns; none for a solid line
    before, after : float arrays (bins,), of which the first is drawn as an area, the second as a line
    """

    name: str
    color: str
    dashes: tuple[int, ...]
    before: np.ndarray
    after: np.ndarray


# --- curves


def draw_curves(picture: Image.Image, box: Box, edges: np.ndarray, curves: Sequence[Curve], title: str) -> None:
    """Draw curves over bins with these edges, array (bins + 1,), into an RGB picture."""
    left, top, width, height = box
    centers = (edges[1:] + edges[:-1]) / 2
    highest = HEADROOM * max([float(values.max()) for curve in curves for values in (curve.before, curve.after)] + [0])
    scale = height / highest if highest > 0 else 0.0
    places = edges[0] + (np.arange(width * SUPERSAMPLED) + 0.5) * (edges[-1] - edges[0]) / (width * SUPERSAMPLED)
    for curve in curves:
        tall = np.interp(places, centers, curve.before, left=0, right=0) * scale
        picture.paste(curve.color, (left, top), _area(tall[::SUPERSAMPLED], height))
    for curve in curves:
        tall = np.interp(places, centers, curve.after, left=0, right=0) * scale
        picture.paste(curve.color, (left, top), _line(tall, (width, height), curve.dashes))
    pen = ImageDraw.Draw(picture)
    _axis(pen, box, (edges[0], edges[-1]))
    pen.text((left + width / 2, top + height + 30), "intensity", font=font(TEXT_PX), anchor="mt", fill=INK)
    pen.text((left, top - 9), title, font=font(TITLE_PX), anchor="ls", fill=INK)
    _legend(picture, (left + 9, top + 7), curves)


def _area(tall: np.ndarray, height: int) -> Image.Image:
    """How much of each pixel is under a curve of these heights in pixels, as a mask."""
    rows = height - np.arange(height, dtype=np.float32)[:, None]
    return Image.fromarray((np.clip(tall - rows + 1, 0, 1) * (255 * AREA_ALPHA)).astype(np.uint8))


def _line(tall: np.ndarray, size: tuple[int, int], dashes: tuple[int, ...]) -> Image.Image:
    """A curve of these heights in pixels, given at each half pixel, as a mask."""
    width, height = size
    mask = Image.new("L", (width * SUPERSAMPLED, height * SUPERSAMPLED))
    pen = ImageDraw.Draw(mask)
    points = np.column_stack([np.arange(tall.size), (height - tall) * SUPERSAMPLED])
    for piece in _pieces(points, tuple(SUPERSAMPLED * dash for dash in dashes)):
        pen.line(piece.ravel().tolist(), fill=255, width=LINE_PX * SUPERSAMPLED)
    return mask.reduce(SUPERSAMPLED)


def _pieces(points: np.ndarray, dashes: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The parts of a polyline, array (N, 2), that are drawn."""
    if not dashes:
        yield points
        return
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    number = np.searchsorted(np.cumsum(dashes), along % sum(dashes), side="right")
    for piece in np.split(points, np.flatnonzero(np.diff(number)) + 1):
        if len(piece) > 1 and number[int(piece[0, 0])] % 2 == 0:
            yield piece


def _legend(picture: Image.Image, corner: tuple[int, int], curves: Sequence[Curve]) -> None:
    """A row for each curve: its area, its line."""
    pen = ImageDraw.Draw(picture)
    for row, curve in enumerate(curves):
        x, y = corner[0], corner[1] + row * LEGEND_ROW_PX
        middle = y + LEGEND_ROW_PX // 2
        wash = Image.new("L", (LEGEND_KEY_PX, 11), round(255 * AREA_ALPHA))
        picture.paste(curve.color, (x, middle - 5), wash)
        pen.text((x + LEGEND_KEY_PX + 7, middle), f"{curve.name} before", font=font(TEXT_PX), anchor="lm", fill=INK)
        x += LEGEND_COLUMN_PX
        key = _line(np.full(LEGEND_KEY_PX * SUPERSAMPLED, 5.0), (LEGEND_KEY_PX, 11), curve.dashes)
        picture.paste(curve.color, (x, middle - 5), key)
        pen.text((x + LEGEND_KEY_PX + 7, middle), f"{curve.name} after", font=font(TEXT_PX), anchor="lm", fill=INK)


# --- the joint histogram


def draw_joint(picture: Image.Image, box: Box, edges: np.ndarray, counts: np.ndarray) -> None:
    """Draw a joint histogram, array (bins, bins) of counts after by before, with edges (bins + 1,) of both.

    The darker, the more voxels, on a logarithmic scale; bins without any stay white. The box is best a multiple of the
    bins, so that all are equally large.
    """
    left, top, width, height = box
    with np.errstate(divide="ignore"):
        part = np.log(counts) / np.log(max(float(counts.max()), 2.0))
    table = (colormaps["cividis_r"](np.arange(256))[:, :3] * 255 + 0.5).astype(np.uint8)
    colors = table[np.clip(part * 255, 0, 255).astype(np.uint8)]
    colors[counts < 1] = 255
    picture.paste(Image.fromarray(colors[::-1]).resize((width, height), Image.Resampling.NEAREST), (left, top))
    pen = ImageDraw.Draw(picture)
    for dot in range(0, width, 4):
        pen.point([(left + dot + k, top + height - 1 - round((dot + k) * height / width)) for k in (0, 1)], fill=INK)
    limits = edges[0], edges[-1]
    _axis(pen, box, limits)
    pen.line((left, top, left, top + height), fill=INK)
    for at, text in _ticks(limits):
        y = top + height - at * height
        pen.line((left - TICK_PX, y, left, y), fill=INK)
        pen.text((left - TICK_PX - 4, y), text, font=font(TEXT_PX), anchor="rm", fill=INK)
    pen.text((left + width / 2, top + height + 30), "before", font=font(TEXT_PX), anchor="mt", fill=INK)
    _sideways(picture, (left - 58, top + height // 2), "after")
    pen.text((left, top - 9), "Joint (log counts)", font=font(TITLE_PX), anchor="ls", fill=INK)


def _sideways(picture: Image.Image, center: tuple[int, int], text: str) -> None:
    """A text from bottom to top, ``center`` at the middle of its lower edge."""
    width, height = 60, 22
    word = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(word).text((width / 2, height / 2), text, font=font(TEXT_PX), anchor="mm", fill=INK)
    picture.paste(word.transpose(Image.Transpose.ROTATE_90), (center[0] - height, center[1] - width // 2))


# --- axes


def _axis(pen: ImageDraw.ImageDraw, box: Box, limits: tuple[float, float]) -> None:
    left, top, width, height = box
    bottom = top + height
    pen.line((left, bottom, left + width, bottom), fill=INK)
    for at, text in _ticks(limits):
        x = left + at * width
        pen.line((x, bottom, x, bottom + TICK_PX), fill=INK)
        pen.text((x, bottom + TICK_PX + 5), text, font=font(TEXT_PX), anchor="mt", fill=INK)


def _ticks(limits: tuple[float, float]) -> list[tuple[float, str]]:
    """Round numbers within limits: where, as a part of the way, and the number."""
    low, high = limits
    values = [v for v in MaxNLocator(MOST_TICKS).tick_values(low, high) if low <= v <= high]
    return [((value - low) / (high - low), f"{value:.6g}") for value in values]
