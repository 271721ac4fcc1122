"""Signs that an image was corrected before it came here, in the JSON that BIDS puts beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Signs", "metadata_beside", "signs_of_correction"]

#: Values of ImageType, as scanners write them.
INTENSITY = {
    "NORM": "The sidecar's ImageType has NORM: the scanner corrected this image already.",
    "UNI": "The sidecar's ImageType has UNI: a ratio of two images, in which the receive field cancels.",
}
GEOMETRY = {
    name: f"The sidecar's ImageType has {name}: corrected for distortion, which leaves the intensities' field."
    for name in ("DIS2D", "DIS3D")
}
OURS = "The sidecar is biascorr_pydra's: a bias field was divided out of this image already."


class Signs(NamedTuple):
    """Sentences on earlier corrections of an image's intensities, and of its geometry."""

    intensity: tuple[str, ...] = ()
    geometry: tuple[str, ...] = ()


def signs_of_correction(metadata: Mapping[str, Any]) -> Signs:
    """What an image's metadata say of earlier corrections.

    Parameters
    ----------
    metadata : mapping
        A BIDS sidecar's content. ``ImageType`` may be a list, or one text with backslashes.
    """
    kinds = metadata.get("ImageType", [])
    kinds = kinds.split("\\") if isinstance(kinds, str) else kinds
    kinds = [str(kind).upper() for kind in kinds] if isinstance(kinds, list | tuple) else []
    intensity = [text for name, text in INTENSITY.items() if name in kinds]
    if "FieldScaledOver" in metadata:
        intensity.append(OURS)
    return Signs(tuple(intensity), tuple(text for name, text in GEOMETRY.items() if name in kinds))


def metadata_beside(file: str | Path) -> tuple[dict[str, Any], list[str]]:
    """The content of the JSON beside an image, and what is wrong with it in words; both empty if there is none."""
    path = Path(file)
    path = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    if not path.is_file():
        return {}, []
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        return {}, [f"The sidecar {path.name} cannot be read ({error})."]
    if not isinstance(content, dict):
        return {}, [f"The sidecar {path.name} is not a JSON object."]
    return content, []
