"""The parameters of N4, what values they take, and the values of each program that calls itself N4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from biascorr_pydra.errors import InvalidParameterError

__all__ = ["PRESETS", "Parameters"]

CHOICES = {
    "nonpositive": ("exclude", "keep"),
    "mesh_over": ("image", "samples"),
    "histogram_range": ("full", "itk"),
    "convergence_measure": ("exact", "itk"),
    "default_mask": ("head", "positive", "all"),
    "precision": ("float32", "float64"),
}

# What ANTs and SimpleITK have in common, since both run ITK's filter.
ITK = {
    "shrink_mm": None,
    "tolerance": 1e-7,
    "mesh_over": "samples",
    "histogram_range": "itk",
    "convergence_measure": "itk",
    "nonpositive": "keep",
    "default_mask": "all",
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "biascorr": {},
    "antspy": {**ITK, "shrink_factor": 4},
    "ants": {**ITK, "shrink_factor": 4, "tolerance": 0.0, "rescale": True},
    "sitk": {**ITK, "shrink_factor": 1, "tolerance": 0.001},
    "niworkflows": {**ITK, "shrink_factor": 4, "spline_distance_mm": 200.0},
    "niworkflows-final": {**ITK, "shrink_factor": 4, "spline_distance_mm": 200.0, "iterations": (50,) * 5},
    "fastsurfer": {**ITK, "shrink_factor": 4, "tolerance": 0.0, "default_mask": "positive"},
    "mriqc": {**ITK, "shrink_factor": 4, "tolerance": 0.0, "clip_percentiles": (10.0, 99.9), "rescale": True},
    "clinica": {**ITK, "shrink_factor": 4, "tolerance": 0.0, "spline_distance_mm": 600.0},
}


@dataclass(frozen=True)
class Parameters:
    """How N4 picks and treats voxels, lays its mesh, sharpens and stops.

    Raises
    ------
    InvalidParameterError
        A value lies outside its range.
    """

    shrink_mm: float | None = field(
        default=4.0,
        metadata={"help": "Voxel size to work at, in mm; each axis is thinned by the nearest whole factor."},
    )
    shrink_factor: int | None = field(
        default=None, metadata={"help": "Use every n-th voxel of each axis; shrink_mm then plays no part."}
    )
    shrink_start: tuple[int, int, int] | None = field(
        default=None, metadata={"help": "First voxel used on each axis, where ITK chose another than this package."}
    )
    iterations: tuple[int, ...] = field(
        default=(50, 50, 50, 50), metadata={"help": "Largest number of iterations, for each level."}
    )
    tolerance: float = field(
        default=1e-3,
        metadata={"help": "A level ends when the field changes by no more than this (std/mean of new/old field)."},
    )
    mesh: tuple[int, int, int] = field(
        default=(1, 1, 1), metadata={"help": "B-spline spans per axis at the first level; each level doubles them."}
    )
    spline_distance_mm: float | None = field(
        default=None, metadata={"help": "Length of a span at the first level in mm, instead of mesh."}
    )
    mesh_over: str = field(
        default="image",
        metadata={"help": "The mesh spans the 'image', or its 'samples' as if they did, as ITK has it."},
    )
    fwhm: float = field(default=0.15, metadata={"help": "Width of the sharpening kernel, in log intensity."})
    wiener_noise: float = field(default=0.01, metadata={"help": "Noise term of the Wiener filter."})
    bins: int = field(default=200, metadata={"help": "Bins of the intensity histogram."})
    histogram_range: str = field(
        default="full",
        metadata={"help": "The histogram spans the 'full' range, or as in 'itk' all but a first voxel that is lowest."},
    )
    convergence_measure: str = field(
        default="exact",
        metadata={"help": "Convergence is measured 'exact', or with the rounding that decides when 'itk' stops."},
    )
    nonpositive: str = field(
        default="exclude",
        metadata={
            "help": "Voxels of zero or less in the mask: 'exclude', or 'keep' their value as its own log, as ITK."
        },
    )
    default_mask: str = field(
        default="head",
        metadata={"help": "Where to estimate if no mask is given: 'head' (detected), 'positive', 'all'."},
    )
    clip_percentiles: tuple[float, float] | None = field(
        default=None, metadata={"help": "Clip intensities to these percentiles of the image first."}
    )
    rescale: bool = field(
        default=False,
        metadata={"help": "Record the range in the mask that the corrected intensities are to be rescaled to."},
    )
    max_seconds: float | None = field(default=None, metadata={"help": "Stop after this time with what was reached."})
    precision: str = field(default="float32", metadata={"help": "Of passes over voxels: 'float32' or 'float64'."})

    def __post_init__(self):
        def check(condition, rule, value):
            if not condition:
                raise InvalidParameterError(rule, value=repr(value))

        check(self.shrink_mm or self.shrink_factor, "give shrink_mm or shrink_factor", None)
        check(self.shrink_mm is None or self.shrink_mm > 0, "shrink_mm must be positive", self.shrink_mm)
        factor = self.shrink_factor
        check(
            factor is None or (factor >= 1 and factor == int(factor)),
            "shrink_factor must be a whole number of at least 1",
            factor,
        )
        start = self.shrink_start
        check(
            start is None or (len(start) == 3 and all(n >= 0 for n in start)),
            "shrink_start needs three voxel indices of at least 0",
            start,
        )
        levels = len(self.iterations) > 0 and all(n >= 1 for n in self.iterations)
        check(levels, "iterations needs one count of at least 1 for each level", self.iterations)
        check(self.tolerance >= 0, "tolerance must not be negative", self.tolerance)
        check(
            len(self.mesh) == 3 and all(n >= 1 for n in self.mesh), "mesh needs three counts of at least 1", self.mesh
        )
        distance = self.spline_distance_mm
        check(distance is None or distance > 0, "spline_distance_mm must be positive", distance)
        check(self.fwhm > 0, "fwhm must be positive", self.fwhm)
        check(self.wiener_noise > 0, "wiener_noise must be positive", self.wiener_noise)
        check(2 <= self.bins <= 65536, "bins must be 2 to 65536", self.bins)
        clip = self.clip_percentiles
        check(
            clip is None or (len(clip) == 2 and 0 <= clip[0] < clip[1] <= 100),
            "clip_percentiles needs two percentiles, the lower first",
            clip,
        )
        check(self.max_seconds is None or self.max_seconds > 0, "max_seconds must be positive", self.max_seconds)
        for option, choices in CHOICES.items():
            check(
                getattr(self, option) in choices, f"{option} must be one of {', '.join(choices)}", getattr(self, option)
            )
