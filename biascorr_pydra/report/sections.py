"""A scan's section of the page, and its pictures: drawn from its images, or as they were drawn before."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from PIL import Image

from . import drawn
from .collect import Problem, Result
from .figures import ScanImages, draw_histogram, draw_strip

__all__ = ["MethodSection", "Picture", "ScanSection", "draw"]

DRAWN_SCAN = ("acquired", "histogram", "position", "masked")
DRAWN_METHOD = ("corrected", "bias", "missing")


@dataclass
class Picture:
    """An embedded picture."""

    src: str
    width: int
    height: int
    alt: str


@dataclass
class MethodSection:
    """One method's part of a scan's section."""

    name: str
    result: Result
    corrected: Picture | None = None
    bias: Picture | None = None
    missing: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class ScanSection:
    """What the template shows of one scan."""

    anchor: str
    scan: str
    title: str
    methods: list[MethodSection]
    acquired: Picture | None = None
    histogram: Picture | None = None
    position: str = ""
    masked: bool = True
    metrics: list[dict[str, Any]] = field(default_factory=list)
    field_metrics: list[dict[str, Any]] = field(default_factory=list)
    times: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    segmentation: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def draw(section: ScanSection) -> None:
    """Fill in a section's pictures, those kept from an earlier page where nothing they show has changed."""
    results = [method.result for method in section.methods]
    root, name = results[0].root, drawn.name_of(section.scan, results)
    if (content := drawn.kept(root, name)) is not None:
        _take_pictures(section, content)
        return
    _draw(section)
    if not section.problems:
        drawn.keep(root, name, _pictures(section))


def _pictures(section: ScanSection) -> dict[str, Any]:
    """What was drawn of a scan, as JSON."""
    methods = {m.name: {part: _plain(getattr(m, part)) for part in DRAWN_METHOD} for m in section.methods}
    return {"methods": methods, **{part: _plain(getattr(section, part)) for part in DRAWN_SCAN}}


def _plain(value: Any) -> Any:
    return {"picture": asdict(value)} if isinstance(value, Picture) else value


def _take_pictures(section: ScanSection, content: Mapping[str, Any]) -> None:
    for part in DRAWN_SCAN:
        setattr(section, part, _unplain(content[part]))
    for method in section.methods:
        for part in DRAWN_METHOD:
            setattr(method, part, _unplain(content["methods"][method.name][part]))


def _unplain(value: Any) -> Any:
    return Picture(**value["picture"]) if isinstance(value, Mapping) else value


def _draw(section: ScanSection) -> None:
    images = ScanImages()
    for method in section.methods:
        if method.result.failed:
            method.missing = f"The correction failed: {method.result.reason}"
        elif not method.result.files:
            method.missing = "No picture: no image file."
        else:
            read = partial(images.add, method.name, method.result.files)
            _guarded(section, method, "the images cannot be read", read)
    scale = images.field_scale
    for method in section.methods:
        if method.name in images.methods:
            draw = partial(_draw_method, section, method, images, scale)
            _guarded(section, method, "the picture cannot be drawn", draw)
    if images.methods:
        first = next(method for method in section.methods if method.name in images.methods)
        _guarded(section, first, "the picture cannot be drawn", partial(_draw_scan, section, images))


def _guarded(section: ScanSection, method: MethodSection, what: str, act) -> None:
    """Run one step of the pictures; whatever a damaged file makes it raise goes to the page, and the rest goes on."""
    try:
        act()
    except Exception as error:  # the readers of damaged files have no common error
        # Where the folder lies is nobody's business who is sent the page.
        reason = str(error).replace(f"{method.result.root}/", "") or type(error).__name__
        method.missing = f"No picture: {what}. {reason}"
        section.problems.append(Problem(f"{method.name}: {section.scan}", f"{what}: {reason}"))


def _draw_method(section: ScanSection, method: MethodSection, images: ScanImages, scale: tuple[float, float]) -> None:
    mine = images.methods[method.name]
    planes = "axial, coronal and sagittal slice"
    if mine.corrected is not None and images.limits is not None:
        jpeg = draw_strip(mine.corrected, images.view, images.limits)
        method.corrected = _picture(jpeg, "jpeg", f"{section.title} corrected by {method.name}: {planes}")
    if mine.bias is not None:
        low, high = scale
        jpeg = draw_strip(mine.bias, images.view, scale, outline=mine.outline)
        alt = f"Bias field of {section.title} by {method.name}: {planes}, colors from {low:.2f} to {high:.2f}"
        method.bias = _picture(jpeg, "jpeg", alt)


def _draw_scan(section: ScanSection, images: ScanImages) -> None:
    section.masked = images.masked
    section.position = ", ".join(f"{value:.0f}" for value in images.position_mm)
    shown = next((mine for mine in images.methods.values() if mine.acquired is not None), None)
    if shown is None:
        return
    jpeg = draw_strip(shown.acquired, images.view, images.limits)
    section.acquired = _picture(jpeg, "jpeg", f"{section.title} as acquired: axial, coronal and sagittal slice")
    brain = {"acquired": shown.brain["acquired"]}
    brain |= {name: mine.brain["corrected"] for name, mine in images.methods.items() if "corrected" in mine.brain}
    png = draw_histogram(brain, images.limits, section.acquired.width / section.acquired.height)
    alt = f"Histograms of {section.title} inside the mask: acquired, and corrected by {', '.join(list(brain)[1:])}"
    section.histogram = _picture(png, "png", alt)


def _picture(content: bytes, kind: str, alt: str) -> Picture:
    width, height = Image.open(io.BytesIO(content)).size
    return Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", width, height, alt)
