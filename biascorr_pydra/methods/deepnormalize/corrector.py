"""DeepNormalize as a corrector: the smooth part of what its generator changes.

The generator changes contrast by design, so that its output is a normalized image and no corrected one
(:mod:`biascorr_pydra.normalize` writes that). As a bias field counts what of log input - log output a B-spline can
follow.

References
----------
Delisle et al. Realistic image normalization for multi-domain segmentation. Medical Image Analysis, 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from biascorr_pydra.errors import InvalidImageError, InvalidParameterError
from biascorr_pydra.images.field import LogBiasSpline, bspline_basis, fit
from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan
from biascorr_pydra.methods.reference import Reference

from . import model

__all__ = ["CORRECTOR", "DeepNormalize"]

# Below these (of the scaled input, of the output) logarithms are of noise.
LEAST_INPUT, LEAST_OUTPUT = 0.15, 0.05


@dataclass(frozen=True)
class DeepNormalize(Corrector):
    """The smooth field that DeepNormalize's normalization implies."""

    stride: int = field(
        default=32,
        metadata={"help": "Samples (1 mm) from one patch of 32 to the next, 1 to 32; the paper's is 8."},
    )
    spline_distance_mm: float = field(
        default=80.0, metadata={"help": "About how far control points of the field lie apart, 20 to 400 mm."}
    )
    weights_file: str | None = field(
        default=None,
        metadata={"help": "Weights (.safetensors, with the card beside it) to use instead of the package's own."},
    )

    name: ClassVar[str] = "deepnormalize"
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = "DeepNormalize (Delisle 2022): smooth part of a learned normalization; T1w, needs a mask"
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "delisle2022",
            "Delisle PL, Anctil-Robitaille B, Desrosiers C, Lombaert H",
            "Realistic image normalization for multi-domain segmentation",
            "Medical Image Analysis",
            2022,
        ),
    )
    memory_gb: ClassVar[float] = 1.2  # the networks, and five maps on a grid of 1 mm
    bytes_per_voxel: ClassVar[float] = 80.0
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "paper": {"stride": 8}}
    weights: ClassVar[str] = model.WEIGHTS

    def __post_init__(self):
        if isinstance(self.stride, bool) or not isinstance(self.stride, int) or not 1 <= self.stride <= 32:
            raise InvalidParameterError("stride is a whole number from 1 to 32", value=repr(self.stride))
        distance = self.spline_distance_mm
        if isinstance(distance, bool) or not isinstance(distance, int | float) or not 20 <= distance <= 400:
            raise InvalidParameterError("spline_distance_mm lies between 20 and 400", value=repr(distance))

    def estimate(self, scan: Scan, *, device: str = "cpu", seed: int = 0) -> Estimate:
        """Estimate the log bias field, as control points of a cubic B-spline over the grid.

        Without a mask, the detected head is taken for the brain, which is right for stripped images only. Nothing is
        drawn at random.

        Raises
        ------
        InvalidImageError
            Hardly a voxel is bright enough, before or after.
        InvalidMaskError
            The mask holds no voxel on a grid of 1 mm.
        WeightsError
            The weights are missing, damaged, another network's, or for several modalities.
        """
        affine = np.diag([*scan.voxel_size_mm, 1.0])
        ran = model.run([scan.data], affine, scan.mask, stride=self.stride, source=self.weights_file, device=device)
        image, normalized = ran.prepared.image[0], ran.normalized[0]
        good = (image > LEAST_INPUT) & (normalized > LEAST_OUTPUT)
        if good.sum() < 100:
            raise InvalidImageError("the normalized image has bright voxels", value=f"{int(good.sum())} voxels")
        logs = np.where(good, np.log(np.where(good, image / np.where(good, normalized, 1), 1)), 0)
        middle = float(logs[good].mean())
        points = self._fit((logs - middle) * good, good, ran.prepared)
        return Estimate(
            LogBiasSpline.spanning(points, scan.data.shape), {**ran.record, "control_points": list(points.shape)}
        )

    def _fit(self, values: np.ndarray, good: np.ndarray, prepared: model.Prepared) -> np.ndarray:
        """Control points over the whole field of view, from every second voxel of the brain along each axis."""
        bases = []
        for n, first, size in zip(prepared.grid, prepared.first, values.shape, strict=True):
            spans = max(1, round((n - 1) / self.spline_distance_mm))
            bases.append(bspline_basis(np.arange(first, first + size, 2), spans + 3, first=0, last=n - 1))
        every = (slice(None, None, 2),) * 3
        return fit(values[every], good[every], bases)


CORRECTOR = DeepNormalize
