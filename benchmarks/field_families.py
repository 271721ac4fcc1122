"""Fields of several families over a simulated head, none of them those of training: lattices, coil arrays, one surface
coil, and the bright centre of a head at 7 T.

Array fields are root sums of squares of what loops receive, by Biot-Savart; all are in the head's own box, in mm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.interpolate import CubicSpline

__all__ = ["FAMILIES", "log_field"]

#: Points of the lattice along each axis of the head -> standard deviation of the log field in the head.
LATTICES = {3: 0.2, 5: 0.15, 7: 0.12}
#: Ratio of the 95th to the 5th percentile in the head.
RINGS = {2: 2.0, 4: 4.0}
FAMILIES = (
    "none",
    *(f"lattice {n}" for n in LATTICES),
    *(f"array {n}" for n in RINGS),
    "surface coil",
    "bright centre",
)
COARSE = 30  # samples along each axis on which coils are computed
SEGMENTS = 20  # of a loop


def log_field(family: str, head: np.ndarray, voxel_size_mm: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Log field of mean 0 over the head, float32.

    Parameters
    ----------
    family : one of FAMILIES
    head : boolean array (I, J, K)
    voxel_size_mm : three floats
    rng : draws positions and strengths
    """
    if family == "none":
        return np.zeros(head.shape, np.float32)
    voxels = np.argwhere(head)
    low, high = voxels.min(0), voxels.max(0)
    if family.startswith("lattice"):
        field = _lattice(int(family.split()[1]), head, low, high, rng)
        return field.astype(np.float32)
    sizes = np.array(voxel_size_mm, float)
    axes = [
        (np.linspace(0, n - 1, COARSE) - (a + b) / 2) * mm
        for n, a, b, mm in zip(head.shape, low, high, sizes, strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    extent = (high - low) * sizes
    coarse, ratio = _coils(family, points, extent, rng)
    places = np.meshgrid(*[np.arange(n) * (COARSE - 1) / (n - 1) for n in head.shape], indexing="ij")
    field = ndimage.map_coordinates(coarse, places, order=3, mode="nearest")
    if ratio is not None:
        below, above = np.percentile(field[head], (5, 95))
        field = field * (np.log(ratio) / (above - below))
    return (field - field[head].mean()).astype(np.float32)


def _lattice(n: int, head: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    values = rng.normal(size=(n,) * 3)
    for axis in range(3):
        places = np.clip((np.arange(head.shape[axis]) - low[axis]) / (high[axis] - low[axis]), 0, 1)
        ends = "not-a-knot" if n > 3 else "natural"
        spline = CubicSpline(np.linspace(0, 1, n), np.moveaxis(values, axis, -1), axis=-1, bc_type=ends)
        values = np.moveaxis(spline(places), -1, axis)
    return (values - values[head].mean()) * (LATTICES[n] / values[head].std())


def _coils(
    family: str, points: np.ndarray, extent: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float | None]:
    """Log sensitivity at the points, and the ratio to which it is scaled, if it is."""
    if family == "bright centre":
        width = rng.uniform(0.26, 0.38) * extent.mean()
        centre = rng.uniform(-0.08, 0.08, 3) * extent + [0, 0, 0.1 * extent[2]]
        bright = np.exp(-((points - centre) ** 2).sum(-1) / (2 * width**2))
        return np.log(rng.uniform(0.3, 0.6) + bright), None
    if family == "surface coil":
        around, up = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5)
        normal = np.array([np.cos(around) * np.cos(up), np.sin(around) * np.cos(up), np.sin(up)])
        centre = normal * (extent / 2) * rng.uniform(1.15, 1.4)
        received = _loop(points, centre, -normal, rng.uniform(0.3, 0.5) * extent.mean())
        return 0.5 * np.log((received**2).sum(-1)), 4 * rng.uniform(0.7, 1.2)
    return _array(points, extent, rng), RINGS[int(family.split()[1])] * rng.uniform(0.9, 1.1)


def _array(points: np.ndarray, extent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Log root sum of squares of 8 to 16 loops in one or two rings about the head."""
    n = int(rng.integers(8, 17))
    rows = 1 if n < 12 else 2
    each, turn = n // rows, rng.uniform(0, 2 * np.pi)
    radius = extent[:2].max() / 2 * rng.uniform(1.1, 1.3)
    height = rng.uniform(-0.1, 0.2) * extent[2]
    power = np.zeros(points.shape[:-1])
    for row in range(rows):
        for j in range(each):
            angle = turn + 2 * np.pi * (j + 0.5 * row) / each
            out = np.array([np.cos(angle), np.sin(angle), 0.0])
            shift = 0 if rows == 1 else (row - 0.5) * 0.45 * extent[2]
            centre = radius * out + [0, 0, height + shift]
            loop = _loop(points, centre, -out, 1.2 * np.pi * radius / each * rng.uniform(0.9, 1.1))
            power += rng.uniform(0.8, 1.2) ** 2 * (loop[..., 0] ** 2 + loop[..., 1] ** 2 + 1e-12)
    return 0.5 * np.log(power)


def _loop(points: np.ndarray, centre: np.ndarray, normal: np.ndarray, radius: float) -> np.ndarray:
    """Field of a circular current at the points (..., 3), by Biot-Savart, up to a factor."""
    normal = normal / np.linalg.norm(normal)
    first = np.cross(normal, [0, 0, 1.0])
    if np.linalg.norm(first) < 0.1:
        first = np.cross(normal, [1.0, 0, 0])
    first /= np.linalg.norm(first)
    second = np.cross(normal, first)
    total = np.zeros_like(points)
    for angle in np.linspace(0, 2 * np.pi, SEGMENTS, endpoint=False):
        place = centre + radius * (np.cos(angle) * first + np.sin(angle) * second)
        along = radius * 2 * np.pi / SEGMENTS * (np.cos(angle) * second - np.sin(angle) * first)
        away = points - place
        # not nearer than a twelfth of the radius: a wire of no thickness is infinite
        distance = np.maximum((away**2).sum(-1), (0.08 * radius) ** 2) ** 1.5
        total += np.cross(along, away) / distance[..., None]
    return total
