"""A small picture of one scan and method, for lists: acquired, corrected, and the field or the rejected one."""

from __future__ import annotations

import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from .geometry import field_limits
from .volumes import ScanImages

__all__ = ["draw_thumbnail"]

TALL_PX, GAP_PX, QUALITY = 116, 3, 70
WIDEST = 2.0  # a slice is shown at most so many times as wide as tall


def draw_thumbnail(images: ScanImages, method: str) -> bytes | None:
    """JPEG of a few kB on the scales of the scan's other pictures; None where one of the three images is not there."""
    volumes = images.methods[method]
    if volumes.acquired is None or volumes.corrected is None or volumes.bias is None:
        return None
    view, _ = images.chosen()
    middle = len(volumes.acquired["axial"]) // 2
    width_mm, height_mm = view.size_mm("axial")
    wide = max(1, round(TALL_PX * min(width_mm / height_mm, WIDEST)))
    panels = [_gray(part["axial"][middle], images.gray_scale) for part in (volumes.acquired, volumes.corrected)]
    if volumes.rejected is not None:  # what was divided out instead is 1, and shows nothing
        panels.append(_colored(volumes.rejected["axial"][middle], field_limits([volumes.brain["rejected"]])[1]))
    else:
        panels.append(_colored(volumes.bias["axial"][middle], images.field_scale[1]))
    canvas = Image.new("RGB", (3 * wide + 2 * GAP_PX, TALL_PX))
    for number, panel in enumerate(panels):
        shown = Image.fromarray(panel).resize((wide, TALL_PX), Image.Resampling.BILINEAR)
        canvas.paste(shown, (number * (wide + GAP_PX), 0))
    stream = io.BytesIO()
    canvas.save(stream, "jpeg", quality=QUALITY, optimize=True)
    return stream.getvalue()


def _gray(panel: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    part = (np.nan_to_num(panel, nan=low, posinf=high, neginf=low) - low) / (high - low)
    return (np.clip(part, 0, 1) * 255 + 0.5).astype(np.uint8)[..., None].repeat(3, 2)


def _colored(bias: np.ndarray, top: float) -> np.ndarray:
    """Blue at ``1 / top``, white at 1, red at ``top``; black where the field is undefined."""
    defined = np.isfinite(bias) & (bias > 0)
    part = np.log(np.where(defined, bias, 1.0)) / np.log(top) / 2 + 0.5
    colors = (colormaps["RdBu_r"](np.clip(part, 0, 1))[..., :3] * 255 + 0.5).astype(np.uint8)
    return np.where(defined[..., None], colors, np.uint8(0))
