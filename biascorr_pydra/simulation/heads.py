"""Simulated MR heads from label maps, with the truth kept: clean image, bias field, labels and brain mask.

What to simulate is sampled first (:class:`HeadSampler` gives :class:`HeadParameters`), then applied
(:func:`simulate_head`), so that one head can be made again, changed in one respect, or scaled in one way only. All
randomness comes from a :class:`torch.Generator`.

The generative idea (one random intensity per label, then blurring, field and noise) is SynthSeg's. Label numbers are
FreeSurfer's; from 500 on they are extra-cerebral, as in SynthSeg's maps. Not simulated: regional variation within a
tissue, motion, ringing, lesions, spatially varying noise.

References
----------
Billot et al. SynthSeg: segmentation of brain MRI scans of any contrast and resolution without retraining. Medical Image
Analysis 86, 2023. doi:10.1016/j.media.2023.102789
Gudbjartsson, Patz. The Rician distribution of noisy MRI data. MRM 34(6), 1995. doi:10.1002/mrm.1910340618
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from biascorr_pydra.errors import GridMismatchError, InvalidImageError, InvalidParameterError
from biascorr_pydra.images.field import DEGREE, bspline_basis, evaluate_tensor
from biascorr_pydra.images.nifti import load

__all__ = [
    "CONTRASTS",
    "HeadParameters",
    "HeadSampler",
    "SimulatedHead",
    "inject_bias",
    "load_label_map",
    "sample_log_bias",
    "simulate_head",
]

N_LABELS = 1024
LABEL_RULE = f"a label map has three axes and integers from 0 to {N_LABELS - 1}"
FIRST_EXTRA_CEREBRAL = 500
ELASTIC_CONTROL_POINTS = 7
LIMITS = {
    "max_rotation_degrees": (0, 45),
    "field_of_view": (0.5, 3),
    "max_translation": (0, 0.5),
    "max_elastic": (0, 0.1),
    "blur": (0, 1 / 3),
    "noise": (0, 0.2),
    "stripped": (0, 1),
    "field_sd": (0, 1),
    "field_spans": (1, 16),
}
# An empty border is added below the head only where the head ends above the map's lowest slice; a neck goes on.
NECK_FRACTION = 0.05

GROUPS: dict[str, tuple[int, ...]] = {
    "white matter": (2, 41, 7, 46),
    "brainstem": (16, 28, 60, 85),
    "grey matter": (3, 42, 8, 47),
    "limbic": (17, 18, 53, 54, 26, 58),
    "thalamus and pallidum": (10, 49, 13, 52),
    "striatum": (11, 12, 50, 51),
    "csf": (4, 5, 14, 15, 43, 44, 24),
}

# Range of each group's mean intensity, or of its distance from the mean of the groups then named.
INTENSITIES: dict[str, tuple[tuple, tuple, tuple]] = {
    # group: T1w, T2w, FLAIR
    "white matter": ((0.85, 1.0), (0.3, 0.45), (0.5, 0.62)),
    "grey matter": ((0.55, 0.72), (0.5, 0.65), (0.65, 0.8)),
    "csf": ((0.12, 0.28), (0.85, 1.0), (0.05, 0.2)),
    "brainstem": ((-0.12, -0.02, "white matter"), (0.0, 0.1, "white matter"), (0.0, 0.1, "white matter")),
    "limbic": ((-0.03, 0.04, "grey matter"), (-0.03, 0.04, "grey matter"), (0.0, 0.05, "grey matter")),
    "thalamus and pallidum": ((-0.2, -0.08, "white matter"), (0.35, 0.5), (0.5, 0.65)),
    "striatum": ((-0.1, 0.0, "white matter", "grey matter"), (0.4, 0.55), (0.55, 0.7)),
}
CONTRASTS: dict[str, dict[str, tuple]] = {
    contrast: {group: row[column] for group, row in INTENSITIES.items()}
    for column, contrast in enumerate(("T1w", "T2w", "FLAIR"))
} | {"random": dict.fromkeys(GROUPS, (0.05, 1.0))}
# Ranges of the mean and of the standard deviation of labels in no group, and outside the brain.
OTHER_BRAIN, EXTRA_CEREBRAL = (0.1, 0.9), (0.02, 1.1)
DEVIATION_BRAIN, DEVIATION_EXTRA_CEREBRAL = (0.01, 0.05), (0.02, 0.12)


@dataclass(frozen=True)
class HeadParameters:
    """Everything that makes one simulated head out of one label map.

    Intensities are in units in which the brightest tissue is about 1.

    Attributes
    ----------
    contrast : one of ``CONTRASTS``
    means, deviations : float tensors, shape (N_LABELS,); of the intensity of each label, of which 0 is empty
    rotation : float tensor, shape (3, 3), from the simulated grid's axes to the label map's
    field_of_view, translation : three floats, of the simulated grid, relative to the extent of the label map per axis
    displacement : float tensor, shape (3, 7, 7, 7)
        B-spline control points of the elastic displacement, relative to half the extent of the label map.
    blur : three floats, 0 to 1/3
        Weight of either neighbour in a three-point average along each axis, for partial volume.
    noise : standard deviation of the noise in each of the two channels (Rician in the magnitude)
    stripped : whether extra-cerebral labels are left out
    log_bias : float tensor, shape (i, j, k)
        Control points of the log bias over the simulated grid, ends on the first and last voxels.
    noise_seed : of the texture and of the noise
    """

    contrast: str
    means: torch.Tensor
    deviations: torch.Tensor
    rotation: torch.Tensor
    field_of_view: tuple[float, float, float]
    translation: tuple[float, float, float]
    displacement: torch.Tensor
    blur: tuple[float, float, float]
    noise: float
    stripped: bool
    log_bias: torch.Tensor
    noise_seed: int


@dataclass(frozen=True)
class SimulatedHead:
    """A simulated head and its truth; all tensors have the shape (I, J, K).

    ``image`` is ``clean * exp(log_bias)`` with Rician noise; ``exp(log_bias)`` has mean 1 over ``brain``; ``labels``
    are the label map's numbers (int64), 0 where stripped; ``brain`` is boolean (labels 1 to 499: CSF included).
    """

    image: torch.Tensor
    clean: torch.Tensor
    log_bias: torch.Tensor
    labels: torch.Tensor
    brain: torch.Tensor


@dataclass(frozen=True)
class HeadSampler:
    """Ranges from which :class:`HeadParameters` are drawn, uniformly.

    Attributes
    ----------
    contrasts : names in ``CONTRASTS``; a name given twice is drawn twice as often
    max_rotation_degrees : about each axis
    field_of_view : range, relative to the head's extent
    max_translation : relative to the head's extent
    max_elastic : largest standard deviation of the displacement's control points, relative to half the extent
    blur : range of the partial-volume weights
    noise : range of the noise's standard deviation
    stripped : probability that extra-cerebral tissue is absent
    field_sd : range of the standard deviation of the log bias over the grid
    field_spans : range of the number of B-spline spans per axis

    Raises
    ------
    InvalidParameterError
        A value lies outside ``LIMITS``.
    """

    contrasts: tuple[str, ...] = ("T1w", "T2w", "FLAIR", "random")
    max_rotation_degrees: float = 15.0
    field_of_view: tuple[float, float] = (0.9, 1.7)
    max_translation: float = 0.05
    max_elastic: float = 0.03
    blur: tuple[float, float] = (0.05, 1 / 3)
    noise: tuple[float, float] = (0.0, 0.04)
    stripped: float = 0.25
    field_sd: tuple[float, float] = (0.0, 0.4)
    field_spans: tuple[int, int] = (1, 4)

    def __post_init__(self):
        for contrast in self.contrasts or ("none",):
            if contrast not in CONTRASTS:
                raise InvalidParameterError(
                    "no contrast of that name", value=repr(contrast), next_step=f"Choose from: {', '.join(CONTRASTS)}."
                )
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, tuple):
                rule, good = f"{name} is a range (from, to)", len(value) == 2 and low <= value[0] <= value[-1] <= high
            else:
                rule, good = f"{name} is a number", low <= value <= high
            if not good:
                raise InvalidParameterError(f"{rule} between {low:g} and {high:g}", value=value)

    def sample(self, generator: torch.Generator) -> HeadParameters:
        """Draw the parameters of one head."""

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * torch.rand((), generator=generator).item()

        def three(low: float, high: float) -> tuple[float, float, float]:
            return uniform(low, high), uniform(low, high), uniform(low, high)

        contrast = self.contrasts[int(torch.randint(len(self.contrasts), (), generator=generator))]
        means, deviations = _sample_intensities(contrast, generator)
        limit, (fewest, most) = np.deg2rad(self.max_rotation_degrees), self.field_spans
        elastic = uniform(0, self.max_elastic)
        spans = [int(torch.randint(fewest, most + 1, (), generator=generator)) for _ in "ijk"]
        return HeadParameters(
            contrast=contrast,
            means=means,
            deviations=deviations,
            rotation=_rotation([uniform(-limit, limit) for _ in "ijk"]),
            field_of_view=three(*self.field_of_view),
            translation=three(-self.max_translation, self.max_translation),
            displacement=torch.randn((3, *[ELASTIC_CONTROL_POINTS] * 3), generator=generator) * elastic,
            blur=three(*self.blur),
            noise=uniform(*self.noise),
            stripped=uniform(0, 1) < self.stripped,
            log_bias=sample_log_bias(spans, uniform(*self.field_sd), generator),
            noise_seed=int(torch.randint(2**31, (), generator=generator)),
        )


def _sample_intensities(contrast: str, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    def draw(brain: tuple[float, float], elsewhere: tuple[float, float]) -> torch.Tensor:
        low, high = (torch.full((N_LABELS,), brain[i]) for i in (0, 1))
        low[FIRST_EXTRA_CEREBRAL:], high[FIRST_EXTRA_CEREBRAL:] = elsewhere
        values = low + (high - low) * torch.rand(N_LABELS, generator=generator)
        values[0] = 0
        return values

    means, deviations = draw(OTHER_BRAIN, EXTRA_CEREBRAL), draw(DEVIATION_BRAIN, DEVIATION_EXTRA_CEREBRAL)
    by_group: dict[str, float] = {}
    for group, (low, high, *near) in CONTRASTS[contrast].items():
        base = sum(by_group[other] for other in near) / len(near) if near else 0.0
        by_group[group] = base + low + (high - low) * torch.rand((), generator=generator).item()
        means[list(GROUPS[group])] = by_group[group]
    return means, deviations


def _rotation(angles: Sequence[float]) -> torch.Tensor:
    rotation = torch.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        turn = torch.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    return rotation


def sample_log_bias(spans: Sequence[int], sd: float, generator: torch.Generator) -> torch.Tensor:
    """Random control points of a smooth log bias field.

    Parameters
    ----------
    spans : three ints
        B-spline spans per axis: 1 is a single cubic over the whole grid, 4 or more is rough.
    sd : standard deviation of the log bias over the grid
    generator : torch.Generator

    Returns
    -------
    float tensor, shape (spans + 3 per axis); the field's mean over the grid is 0.
    """
    points = torch.randn([n + DEGREE for n in spans], generator=generator)
    values = _on_grid(points, (24, 24, 24))
    # B-splines sum to 1, so shifting and scaling the control points shifts and scales the field.
    return (points - values.mean()) * (sd / values.std())


def _on_grid(control_points: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    bases = [
        torch.as_tensor(bspline_basis(np.arange(n), k, first=0, last=n - 1), dtype=control_points.dtype)
        for n, k in zip(shape, control_points.shape[-3:], strict=True)
    ]
    return evaluate_tensor(control_points, bases)


def simulate_head(
    labels: torch.Tensor, parameters: HeadParameters, shape: tuple[int, int, int] = (100, 100, 100)
) -> SimulatedHead:
    """Make a head from a label map.

    Parameters
    ----------
    labels : integer tensor, shape (I, J, K)
        From :func:`load_label_map`: cropped to the head. Values 0 to 1023.
    parameters : HeadParameters
    shape : three ints
        The simulated grid.

    Raises
    ------
    InvalidImageError
        The labels are not integers from 0 to 1023 on three axes, or no brain label falls on the grid.
    """
    if labels.ndim != 3 or labels.is_floating_point() or labels.min() < 0 or labels.max() >= N_LABELS:
        received = f"shape {tuple(labels.shape)}, {labels.dtype}, {labels.min()} to {labels.max()}"
        raise InvalidImageError(LABEL_RULE, value=received)
    moved = _move(labels, parameters, shape)
    brain = (moved > 0) & (moved < FIRST_EXTRA_CEREBRAL)
    if not brain.any():
        raise InvalidImageError("no brain label falls on the grid", next_step="Check the label map's numbers.")
    if parameters.stripped:
        moved = torch.where(brain, moved, 0)
    noise = torch.Generator().manual_seed(parameters.noise_seed)
    texture = parameters.deviations[moved] * torch.randn(shape, generator=noise)
    clean = blur((parameters.means[moved] + texture).clamp_(min=0), parameters.blur)
    log_bias = _on_grid(parameters.log_bias, shape)
    log_bias = log_bias - log_bias[brain].exp().mean().log()
    imaginary, in_phase = (parameters.noise * torch.randn(shape, generator=noise) for _ in range(2))
    return SimulatedHead(torch.hypot(clean * log_bias.exp() + in_phase, imaginary), clean, log_bias, moved, brain)


def _move(labels: torch.Tensor, parameters: HeadParameters, shape: Sequence[int]) -> torch.Tensor:
    """Labels at the nearest voxels of the rotated, scaled, shifted and warped grid (int64)."""
    extent = torch.tensor(labels.shape, dtype=torch.float32)
    # Rotation is in voxels of the label map, which are cubes: in relative coordinates it would shear.
    matrix = parameters.rotation * (extent * torch.tensor(parameters.field_of_view) / 2)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    warp = _on_grid(parameters.displacement, shape)
    index = torch.zeros(tuple(shape), dtype=torch.int64)
    for i, n in enumerate(labels.shape):
        centre = (n - 1) / 2 + parameters.translation[i] * n
        position = centre + warp[i] * (n / 2)
        for j, axis in enumerate(axes):
            position = position + matrix[i, j] * axis
        # Positions outside take the border's label, which is empty except where the neck goes on.
        index = index * n + position.round_().clamp_(0, n - 1).long()
    return labels.reshape(-1)[index].long()


def blur(image: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Give each voxel's neighbours along each axis so much of it: three taps, weights 0 to 1/3."""
    for axis, weight in enumerate(weights):
        moved = image.movedim(axis, 0)
        before, after = torch.cat([moved[:1], moved[:-1]]), torch.cat([moved[1:], moved[-1:]])
        image = ((1 - 2 * weight) * moved + weight * (before + after)).movedim(0, axis)
    return image


def load_label_map(file: str | Path, voxel_size_mm: float = 2.0) -> torch.Tensor:
    """Read a label map: in RAS+ order, on cubes of about this size (nearest voxels), cropped to the head.

    Parameters
    ----------
    file : path of a NIfTI image of labels
    voxel_size_mm : float
        A label map of 256 x 256 x 256 voxels of 1 mm takes about 2 MB at 2 mm.

    Returns
    -------
    int16 tensor, shape (I, J, K), with one empty voxel around the head, except below if the neck is cut off there.

    Raises
    ------
    UnreadableImageError, InvalidImageError
    """
    img = nib.as_closest_canonical(load(file))
    values = np.asarray(img.dataobj)
    if values.ndim != 3 or (values != np.round(values)).any() or values.min() < 0 or values.max() >= N_LABELS:
        raise InvalidImageError(LABEL_RULE, file=file)
    sizes = nib.affines.voxel_sizes(img.affine)
    steps = zip(values.shape, voxel_size_mm / sizes, strict=True)
    picks = [np.arange(0, n - 0.5, step).round().astype(int) for n, step in steps]
    labels = values[np.ix_(*picks)].astype(np.int16)
    if not labels.any():
        raise InvalidImageError("the label map is empty", file=file)
    where = [np.flatnonzero(labels.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    labels = labels[tuple(slice(w[0], w[-1] + 1) for w in where)]
    neck = (labels[:, :, 0] > 0).mean() > NECK_FRACTION
    return torch.from_numpy(np.pad(labels, ((1, 1), (1, 1), (0 if neck else 1, 1))))


def inject_bias(data, log_bias):
    """Multiply an image by a known bias field: ``data * exp(log_bias)``.

    Parameters
    ----------
    data, log_bias : arrays or tensors of one shape

    Returns
    -------
    Same kind and data type as ``data``.

    Raises
    ------
    GridMismatchError
        The shapes differ.
    InvalidParameterError
        The log bias has a value that is not finite.
    """
    if tuple(data.shape) != tuple(log_bias.shape):
        raise GridMismatchError(
            "the field and the image have one shape", value=f"{tuple(log_bias.shape)} and {tuple(data.shape)}"
        )
    if not np.isfinite(np.asarray(log_bias)).all():
        raise InvalidParameterError("a log bias field is finite everywhere", value="NaN or infinite voxels")
    if isinstance(data, torch.Tensor):
        return data * torch.exp(torch.as_tensor(log_bias)).to(data.dtype)
    return data * np.exp(np.asarray(log_bias)).astype(data.dtype)
