"""Which slices of a scan are shown, how they lie, and on which scales: the same for all of its pictures.

Images are in RAS+ order (nearest axes; nothing is resampled) and shown in neurological convention, as in fMRIPrep's
reports: the subject's left is at the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["EDGES", "PLANES", "View", "field_limits", "intensity_limits"]

PLANES = ("axial", "coronal", "sagittal")
#: Letters at the left, right, top and bottom edge of each plane.
EDGES = {"axial": "LRAP", "coronal": "LRSI", "sagittal": "PASI"}
#: The array axis that each plane cuts.
AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
#: Where the slices are: at these parts of the mask's volume along each axis. None is in the middle, where a sagittal
#: slice would show the fissure instead of tissue.
QUANTILES = (0.1, 0.36, 0.64, 0.9)
MARGIN_MM = 12.0
INTENSITY_PERCENTILES = (0.5, 99.5)
FIELD_PERCENTILE = 0.5
MOST_VALUES = 200_000  # evenly taken out of more: the percentiles of a brain are then known to a thousandth
#: Upper ends of the field's scale; a nearly flat field is not blown up to full color.
FIELD_STEPS = (1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class View:
    """Slices and box of a RAS+ array, chosen once per scan from its mask.

    Attributes
    ----------
    at : three tuples of ints
        Indices of the slices along each array axis, ascending; fewer than four where the mask is that thin.
    start, stop : three ints each
        Box shown, in voxels.
    voxel_size_mm : three floats
    """

    at: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    voxel_size_mm: tuple[float, float, float]

    @classmethod
    def through(cls, mask: np.ndarray, voxel_size_mm: tuple[float, float, float]) -> View:
        """Slices through a mask (I, J, K) in RAS+ order that is not empty, and a box around it with a margin."""
        at, start, stop = [], [], []
        for axis, size in enumerate(voxel_size_mm):
            profile = mask.sum(axis=tuple(other for other in range(3) if other != axis))
            inside = np.flatnonzero(profile)
            part = np.cumsum(profile) / profile.sum()
            at.append(tuple(sorted({int(np.searchsorted(part, q)) for q in QUANTILES})))
            margin = round(MARGIN_MM / size)
            start.append(max(int(inside[0]) - margin, 0))
            stop.append(min(int(inside[-1]) + margin + 1, profile.size))
        i, j, k = zip(at, start, stop, strict=True)
        return cls((i[0], j[0], k[0]), (i[1], j[1], k[1]), (i[2], j[2], k[2]), voxel_size_mm)

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Size of the box."""
        i, j, k = ((b - a) * s for a, b, s in zip(self.start, self.stop, self.voxel_size_mm, strict=True))
        return i, j, k

    @property
    def n_rows(self) -> int:
        """Slices of the plane that has most."""
        return max(map(len, self.at))

    def size_mm(self, plane: str) -> tuple[float, float]:
        """Width and height of a slice as shown."""
        x, y, z = self.extent_mm
        return {"axial": (x, y), "coronal": (x, z), "sagittal": (y, z)}[plane]

    def slices(self, data: np.ndarray) -> dict[str, list[np.ndarray]]:
        """The slices of a RAS+ array as shown: first row on top, first column at the left.

        Left, left and posterior are at the left; anterior, superior and superior on top.
        """
        box = data[tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))]
        shown = {}
        for plane in PLANES:
            axis = AXES[plane]
            along = np.moveaxis(box, axis, 0)
            shown[plane] = [along[i - self.start[axis]].T[::-1].copy() for i in self.at[axis]]
        return shown


def intensity_limits(acquired: np.ndarray) -> tuple[float, float]:
    """The one gray scale for acquired and corrected images: robust range of the acquired values in the mask."""
    values = _some(acquired)
    values = values[np.isfinite(values)]
    low, high = (float(v) for v in np.percentile(values, INTENSITY_PERCENTILES)) if values.size else (0.0, 1.0)
    return (low, high) if high > low else (low, low + 1.0)


def field_limits(fields: list[np.ndarray]) -> tuple[float, float]:
    """The one scale for all methods' fields, (1/m, m): m covers 99% of each field's values in its mask.

    ``fields`` are arrays of any shape, the values inside the masks; values that are not positive and finite are left
    out.
    """
    largest = 1.0
    for values in map(_some, fields):
        values = values[np.isfinite(values) & (values > 0)]
        if values.size:
            spread = np.abs(np.log(np.percentile(values, (FIELD_PERCENTILE, 100 - FIELD_PERCENTILE))))
            largest = max(largest, float(np.exp(spread.max())))
    top = next((step for step in FIELD_STEPS if largest <= step), FIELD_STEPS[-1])
    return 1 / top, top


def _some(values: np.ndarray) -> np.ndarray:
    """At most about ``MOST_VALUES`` of them, evenly spread."""
    return values.ravel()[:: max(1, values.size // MOST_VALUES)]
