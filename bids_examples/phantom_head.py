"""The head of the example data: anatomy from the MNI152 template, sessions with grids of their own, true bias fields.

Around the brain of the template stand a rim of CSF, a dark skull, and a head with fat, muscle, eyes and a nasal cavity.
Everything is drawn with seeds, so that the same session gives the same voxels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import nilearn.datasets
import numpy as np
from scipy import ndimage

from biascorr_pydra.images.field import LogBiasSpline

SEED = 2026

# Mean intensities, in arbitrary units, of what the phantom is made of.
CONTRAST = {
    "T1w": {"GM": 58, "WM": 83, "CSF": 23, "skull": 9, "muscle": 40, "fat": 108, "eyes": 20, "air": 0},
    "T2w": {"GM": 60, "WM": 43, "CSF": 108, "skull": 8, "muscle": 23, "fat": 70, "eyes": 113, "air": 0},
}
NOISE_SIGMA = 1.7  # Rician, about 2% of white matter in T1w
FIELD_OF_VIEW_MM = ((-92.0, 92.0), (-124.0, 98.0), (-84.0, 98.0))
TISSUES = ("GM", "WM", "CSF")  # labels 1, 2, 3


@dataclass(frozen=True)
class Session:
    """One session of one subject, and what is particular about its images' grids and headers."""

    subject: str
    session: str
    age: int
    axcodes: str = "RAS"
    oblique_degrees: tuple[float, float] = (0.0, 0.0)  # about the x and the z axis
    scl_slope: float = 1.0
    slice_mm: dict[str, float] = field(default_factory=dict)
    field_range: float = 0.35  # spread of the log field between its 5th and 95th percentiles in the brain
    sidecars: dict[str, dict] = field(default_factory=dict)


SESSIONS = (
    Session("01", "1", 31),
    Session("01", "2", 32, axcodes="LAS", field_range=0.5),
    Session(
        "02",
        "1",
        45,
        scl_slope=2.5,
        slice_mm={"T2w": 3.0},
        sidecars={"T2w": {"MRAcquisitionType": "2D", "SliceThickness": 3.0}},
    ),
    Session(
        "03",
        "1",
        27,
        oblique_degrees=(9.0, 5.0),
        field_range=0.8,
        sidecars={"T1w": {"MagneticFieldStrength": 7.0}, "T2w": {"MagneticFieldStrength": 7.0}},
    ),
)


def rng_for(*keys: str) -> np.random.Generator:
    """A generator of its own for each subject, session and purpose, so that parts can be made alone."""
    return np.random.default_rng([SEED, *b"/".join(key.encode() for key in keys)])


# --- anatomy


@dataclass(frozen=True)
class Anatomy:
    """The template head. Maps are sampled at world coordinates (mm, RAS+) through the inverse of their affine."""

    maps: dict[str, np.ndarray]  # GM, WM, CSF fractions inside the brain, 1 mm
    affine: np.ndarray
    distances: dict[str, np.ndarray]  # signed distances in mm, positive outside: to the brain's envelope, to the skin
    distances_affine: np.ndarray


def load_anatomy() -> Anatomy:
    """Tissue fractions from the template's maps, and the head around them."""
    folder = Path(nilearn.datasets.__file__).parent / "data"
    read = {k: nib.load(folder / f"mni_icbm152_{k}_tal_nlin_sym_09a_converted.nii.gz") for k in ("t1", "gm", "wm")}
    gm, wm = (np.asarray(read[k].dataobj, np.float64) / 255 for k in ("gm", "wm"))
    brain = ndimage.binary_fill_holes(np.asarray(read["t1"].dataobj) > 0)
    # An average of 152 brains is blurred; the fourth power makes most voxels one tissue again.
    parts = [np.where(brain, part, 0) ** 4 for part in (gm, wm, np.clip(1 - gm - wm, 0, 1))]
    total = np.maximum(sum(parts), 1e-12)
    # Smoothing to the coarser grid's voxel size before sampling there keeps fine folds from aliasing.
    maps = {
        tissue: ndimage.gaussian_filter(np.where(brain, part / total, 0), 0.7)
        for tissue, part in zip(TISSUES, parts, strict=True)
    }
    return Anatomy(maps, read["t1"].affine, *head_around(brain, read["t1"].affine))


def head_around(brain: np.ndarray, affine: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Signed distances to the brain's smooth envelope and to the skin, on a 2 mm grid with room for a head."""
    margin = 40
    envelope = ndimage.binary_closing(np.pad(brain, margin)[::2, ::2, ::2], iterations=5)
    grid_affine = affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    grid_affine[:3, 3] = affine[:3, 3] - margin
    x, y, z = world_grid(envelope.shape, grid_affine)
    to_envelope = signed_distance_mm(envelope, 2.0)
    face = (x / 60) ** 2 + ((y - 42) / 44) ** 2 + ((z + 52) / 66) ** 2 < 1
    neck = (x / 56) ** 2 + ((y + 28) / 62) ** 2 + (np.minimum(z + 55, 0) / 200) ** 2 < 1
    head = (to_envelope < 15) | face | (neck & (z < -30))
    head = ndimage.gaussian_filter(head.astype(np.float64), 3) > 0.5
    return {"brain": to_envelope, "skin": signed_distance_mm(head, 2.0)}, grid_affine


def signed_distance_mm(mask: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Distance to the mask's surface, negative inside."""
    outside, inside = (ndimage.distance_transform_edt(m) for m in (~mask, mask))
    return voxel_mm * (outside - inside)


def world_grid(shape, affine: np.ndarray) -> np.ndarray:
    """World coordinates of every voxel: array (3, I, J, K) in mm."""
    return np.einsum("ij,j...->i...", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]


def sample(array: np.ndarray, affine: np.ndarray, world: np.ndarray, outside: float = 0.0) -> np.ndarray:
    """Linear interpolation of an array at world coordinates (3, I, J, K)."""
    to_voxel = np.linalg.inv(affine)
    voxels = np.einsum("ij,j...->i...", to_voxel[:3, :3], world) + to_voxel[:3, 3, None, None, None]
    return ndimage.map_coordinates(array, voxels, order=1, mode="constant", cval=outside)


# --- subjects


def rotation(degrees) -> np.ndarray:
    """Rotation about the x, then the y, then the z axis: (3, 3)."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [k for k in range(3) if k != axis]
        one = np.eye(3)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        turn = one @ turn
    return turn


def template_coordinates(world: np.ndarray, session: Session) -> np.ndarray:
    """Where in the template each scanner position lies: the head's position, then the subject's shape."""
    pose = rng_for(session.subject, session.session, "pose")
    shape = rng_for(session.subject, "shape")
    turned = rotation(pose.uniform(-3, 3, 3)) @ (world + pose.uniform(-3, 3, (3, 1, 1, 1))).reshape(3, -1)
    scale = np.diag(shape.uniform(0.95, 1.06, 3))
    shear = np.eye(3) + np.triu(shape.uniform(-0.03, 0.03, (3, 3)), 1)
    moved = (scale @ shear @ turned).reshape(world.shape)
    # The elastic part: four plane waves an axis, so that every grid over this subject sees the same anatomy.
    for axis in moved:
        for _ in range(4):
            wave = shape.normal(0, 1, 3)
            wave *= 2 * np.pi / shape.uniform(60, 130) / np.linalg.norm(wave)
            phase = np.tensordot(wave, turned.reshape(world.shape), 1) + shape.uniform(0, 2 * np.pi)
            axis += 1.2 * np.sin(phase)
    return moved


def fractions(anatomy: Anatomy, session: Session, shape, affine: np.ndarray) -> dict[str, np.ndarray]:
    """What each voxel is made of: name -> fraction, summing to 1."""
    at = template_coordinates(world_grid(shape, affine), session)
    parts = {tissue: sample(m, anatomy.affine, at) for tissue, m in anatomy.maps.items()}
    to_brain, to_skin = (sample(anatomy.distances[k], anatomy.distances_affine, at, 60.0) for k in ("brain", "skin"))
    x, y, z = at

    def within(distance, edge_mm):  # a soft step, one voxel wide
        return np.clip((edge_mm - distance) / 2 + 0.5, 0, 1)

    def ball(cx, cy, cz, *radii):
        squared = sum(((u - c) / r) ** 2 for u, c, r in zip((x, y, z), (cx, cy, cz), radii, strict=True))
        return within((np.sqrt(squared) - 1) * min(radii), 0)

    layers = {
        "rim": within(to_brain, 2.0),
        "skull": within(to_brain, 7.5 + 1.5 * np.sin(x / 23) * np.cos(y / 31)),
        "eyes": np.maximum(ball(-32, 66, -38, 12, 12, 12), ball(32, 66, -38, 12, 12, 12)),
        "air": ball(0, 54, -48, 13, 24, 22),
        "muscle": within(to_skin, -5.0),
        "fat": within(to_skin, 0.0),
    }
    left = np.clip(1 - sum(parts.values()), 0, 1)
    parts["air"] = np.zeros(shape)
    for name, layer in layers.items():
        target = "CSF outside" if name == "rim" else name
        parts[target] = parts.get(target, 0) + left * layer
        left = left * (1 - layer)
    parts["air"] += left
    return parts


# --- images


def grid_for(session: Session, suffix: str) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of an image: 2 mm, its slices as thick as the session says, in its orientation."""
    sizes = np.array([2.0, 2.0, session.slice_mm.get(suffix, 2.0)])
    low, high = np.array(FIELD_OF_VIEW_MM).T
    shape = np.floor((high - low) / sizes).astype(int)
    signs = np.array([1 if code == plus else -1 for code, plus in zip(session.axcodes, "RAS", strict=True)])
    about_x, about_z = session.oblique_degrees
    affine = np.eye(4)
    affine[:3, :3] = rotation((about_x, 0, about_z)) @ np.diag(signs * sizes)
    affine[:3, 3] = (low + high) / 2 - affine[:3, :3] @ ((shape - 1) / 2)
    return tuple(int(n) for n in shape), np.round(affine, 6)


def true_field(session: Session, suffix: str, shape, brain: np.ndarray) -> LogBiasSpline:
    """A smooth log field on 5 x 5 x 5 control points, scaled to the session's range in the brain."""
    rng = rng_for(session.subject, session.session, suffix, "field")
    lattice = LogBiasSpline.spanning(rng.normal(0, 1, (5, 5, 5)), shape)
    low, high = np.percentile(lattice.on_grid(shape, np.float64)[brain], (5, 95))
    # Six decimals: the file gives exactly the field that was applied.
    return LogBiasSpline.spanning(np.round(lattice.control_points * session.field_range / (high - low), 6), shape)


def render(parts: dict[str, np.ndarray], session: Session, suffix: str, log_bias: np.ndarray) -> np.ndarray:
    """Acquired intensities: tissue means with a fine texture, times the field, with Rician noise."""
    rng = rng_for(session.subject, session.session, suffix, "noise")
    means = {**CONTRAST[suffix], "CSF outside": CONTRAST[suffix]["CSF"]}
    clean = sum(means[name] * part for name, part in parts.items())
    texture = ndimage.gaussian_filter(rng.normal(0, 1, clean.shape), 1.0)
    clean = clean * (1 + 0.02 * texture / texture.std())
    real, imaginary = rng.normal(0, NOISE_SIGMA, (2, *clean.shape))
    return np.hypot(clean * np.exp(log_bias) + real, imaginary)
