"""The pictures of one scan: drawn into OUT/reports/figures, or those drawn before, where nothing they show has changed.

What was drawn of which files is kept in OUT/.biascorr/pages, so that a page is made again without opening an image.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from biascorr_pydra.errors import BiasCorrError
from biascorr_pydra.images.files import write_bytes
from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.paths import figures_folder, page_name

from .geometry import field_limits
from .histograms import draw_histograms
from .mosaic import OUTLINES, draw_anatomy, draw_field, draw_tissues, outlined
from .thumbnail import draw_thumbnail
from .volumes import ScanImages

__all__ = ["MethodPictures", "Picture", "ScanPictures", "draw", "key_of", "key_of_method"]

VERSION = 4  # changes when the same results would be drawn differently


@dataclass(frozen=True)
class Picture:
    """A picture beside the page.

    Attributes
    ----------
    file : path relative to the folder of the pages, or an address that holds the picture, as a link
    width, height : in pixels
    alt : what it shows, for those who do not see it
    """

    file: str
    width: int
    height: int
    alt: str


@dataclass
class MethodPictures:
    """What is shown of one method; ``rejected`` is a field that was not divided out, ``missing`` why one is absent."""

    corrected: Picture | None = None
    bias: Picture | None = None
    rejected: Picture | None = None
    histograms: Picture | None = None
    thumbnail: Picture | None = None
    missing: str = ""


@dataclass
class ScanPictures:
    """What is shown of one scan.

    Attributes
    ----------
    acquired, tissues : pictures, if they could be drawn
    masked : whether a brain mask was there
    outlines : what is outlined in ``tissues``
    of_judge : whether these tissues are the judge's
    field_top : upper end of the fields' scale
    methods : by name
    problems : in words, what could not be read or drawn
    """

    acquired: Picture | None = None
    tissues: Picture | None = None
    masked: bool = True
    outlines: list[str] = field(default_factory=list)
    of_judge: bool = False
    field_top: float | None = None
    methods: dict[str, MethodPictures] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ScanPictures:
        """From what ``asdict`` gave.

        Raises
        ------
        KeyError, TypeError, AttributeError
            It is something else.
        """
        parts = dict(content)
        for name in ("acquired", "tissues"):
            parts[name] = _picture(parts[name])
        parts["methods"] = {
            name: MethodPictures(**{key: _picture(value) for key, value in method.items()})
            for name, method in parts["methods"].items()
        }
        return cls(**parts)

    @property
    def inside(self) -> bool:
        """Whether the page holds the pictures itself."""
        return any(file.startswith("data:") for file in self.files())

    def files(self) -> set[str]:
        """All pictures, as links."""
        pictures = {self.acquired, self.tissues}
        for method in self.methods.values():
            pictures |= {method.corrected, method.bias, method.rejected, method.histograms, method.thumbnail}
        return {picture.file for picture in pictures if picture is not None}


def _picture(value: Any) -> Any:
    return Picture(**value) if isinstance(value, Mapping) else value


def key_of(scan: str, results: Sequence[Result]) -> str:
    """A hash of all that the pictures of these results show; another one when any of it changes."""
    shown = [_shown(result) for result in results]
    shown.append([_stamp(results[0].judged.dseg)] if results and results[0].judged.dseg else [])
    return _hash([VERSION, scan, shown])


def key_of_method(result: Result) -> str:
    """A hash of all that the pictures of one method alone show."""
    return _hash([VERSION, result.scan, _shown(result)])


def _shown(result: Result) -> list[Any]:
    files = {kind: _stamp(path) for kind, path in sorted(result.files.items())}
    return [result.method, result.failed, files, result.record.get("work")]


def _hash(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _stamp(path: Path) -> list[Any] | None:
    try:
        stat = path.stat()
    except OSError:  # removed since it was listed
        return None
    return [path.name, stat.st_size, stat.st_mtime_ns]


#: Takes what a picture shows, its kind (jpg, png) and its bytes, and gives the link to it.
Keep = Callable[[str, str, bytes], str]


def draw(out_dir: Path, scan: str, title: str, results: Sequence[Result], *, keep: Keep | None = None) -> ScanPictures:
    """Draw a scan's pictures, and write them into the folder of pictures, or hand them to ``keep``.

    What cannot be read or drawn is said in the result's ``problems`` and never stops the rest.
    """
    pictures = ScanPictures(methods={result.method: MethodPictures() for result in results})
    images = ScanImages()
    guard = partial(_guarded, pictures, out_dir)
    for result in results:
        if result.files and not result.failed:
            guard("the images cannot be read", partial(images.add, result.method, result.files), result.method)
    if images.view is None:
        return pictures
    dseg = _segmentation(results)
    if dseg is not None:
        of_judge = dseg == results[0].judged.dseg
        guard("the segmentation cannot be read", partial(images.add_tissues, dseg, of_judge=of_judge))
        pictures.of_judge = of_judge
    pictures.masked = images.masked
    write = partial(_kept, keep or partial(_write, out_dir, scan))
    guard("the picture cannot be drawn", partial(_draw_scan, pictures, images, title, write))
    for name, label in zip(images.methods, _labels(list(images.methods)), strict=True):
        draw_one = partial(_draw_method, pictures, images, name, label, title, write)
        guard("the picture cannot be drawn", draw_one, name)
    return pictures


def _segmentation(results: Sequence[Result]) -> Path | None:
    """The judge's tissue; where it has none, a method's own segmentation."""
    return results[0].judged.dseg or next((r.files["dseg"] for r in results if "dseg" in r.files), None)


def _guarded(pictures: ScanPictures, out_dir: Path, failure: str, act: Callable, method: str = "") -> None:
    """Run one step; whatever a damaged file makes it raise goes to the page, and the rest goes on."""
    try:
        act()
    except Exception as error:  # the readers of damaged files have no common error
        # Where the folder lies is nobody's business who is sent the page.
        reason = str(error).replace(f"{out_dir}/", "") or type(error).__name__
        if not isinstance(error, BiasCorrError):
            reason = f"{type(error).__name__}: {reason}"
        if method:
            pictures.methods[method].missing = f"{failure[0].upper()}{failure[1:]}. {reason}"
        pictures.problems.append(f"{method}: {failure}: {reason}" if method else f"{failure}: {reason}")


# --- drawing

PLANES = "slices in axial, coronal and sagittal columns"


def _draw_scan(pictures: ScanPictures, images: ScanImages, title: str, write: Callable) -> None:
    shown = next((of_method for of_method in images.methods.values() if of_method.acquired is not None), None)
    if shown is None or shown.acquired is None or shown.corrected is None:
        return
    pictures.acquired = write("acquired", "jpg", draw_anatomy(images, shown.acquired), f"{title} as acquired: {PLANES}")
    tissues = outlined(images)
    pictures.outlines = [name for name in OUTLINES if (images.masked if name == "brain mask" else name in tissues)]
    if pictures.outlines:
        alt = f"{title}, corrected, with outlines of {', '.join(pictures.outlines)}: {PLANES}"
        pictures.tissues = write("tissues", "jpg", draw_tissues(images, shown.corrected), alt)


def _draw_method(
    pictures: ScanPictures, images: ScanImages, name: str, label: str, title: str, write: Callable
) -> None:
    volumes, drawn = images.methods[name], pictures.methods[name]
    if volumes.corrected is not None and images.limits is not None:
        jpeg = draw_anatomy(images, volumes.corrected)
        drawn.corrected = write(f"{label}corrected", "jpg", jpeg, f"{title} corrected by {name}: {PLANES}")
    if volumes.bias is not None:
        low, high = images.field_scale
        pictures.field_top = high
        jpeg = draw_field(images, volumes.bias, volumes.acquired, (low, high))
        alt = f"Bias field of {title} by {name} over the acquired image: {PLANES}, colors from {low:.2f} to {high:.2f}"
        drawn.bias = write(f"{label}biasfield", "jpg", jpeg, alt)
    if volumes.rejected is not None:
        low, high = field_limits([volumes.brain["rejected"]])  # a scale of its own: it may be absurd
        jpeg = draw_field(images, volumes.rejected, volumes.acquired, (low, high))
        alt = f"Field of {title} by {name} that was not divided out: {PLANES}, colors from {low:.2f} to {high:.2f}"
        drawn.rejected = write(f"{label}rejected", "jpg", jpeg, alt)
    if volumes.acquired is not None:
        png = draw_histograms(volumes.brain["acquired"], volumes.brain["corrected"], images.labels, images.gray_scale)
        alt = f"Histograms of {title} before and after {name}: by tissue, and jointly"
        drawn.histograms = write(f"{label}histograms", "png", png, alt)
    if (small := draw_thumbnail(images, name)) is not None:
        alt = f"{title} by {name}: acquired, corrected, field; an axial slice"
        drawn.thumbnail = write(f"{label}thumbnail", "jpg", small, alt)


def _labels(methods: Sequence[str]) -> list[str]:
    """A BIDS label for each method: letters and digits only, and no two alike."""
    made: list[str] = []
    for number, method in enumerate(methods, start=1):
        label = re.sub(r"[^A-Za-z0-9]+", "", method) or f"method{number}"
        made.append(label if label not in made else f"{label}{number}")
    return made


def _kept(keep: Keep, desc: str, kind: str, content: bytes, alt: str) -> Picture:
    width, height = Image.open(io.BytesIO(content)).size
    return Picture(keep(desc, kind, content), width, height, alt)


def _write(out_dir: Path, scan: str, desc: str, kind: str, content: bytes) -> str:
    stem, _, suffix = page_name(scan).rpartition("_")
    path = figures_folder(out_dir) / f"{stem}_desc-{desc}_{suffix}.{kind}"
    write_bytes(path, content)
    return f"{path.parent.name}/{path.name}"
