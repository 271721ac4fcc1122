"""ANTs' own N4, run in process through antspyx: the reference that :mod:`biascorr_pydra.methods.n4` is held to.

Only voxels and their size reach ANTs. Origin and direction play no part in N4, and real headers may carry sforms that
ITK refuses (not orthonormal).

References
----------
Tustison et al. N4ITK: improved N3 bias correction. IEEE TMI 29(6), 2010. doi:10.1109/TMI.2010.2046908
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from typing import Any, ClassVar

import numpy as np

from biascorr_pydra.errors import InvalidMaskError, InvalidParameterError
from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan
from biascorr_pydra.methods.reference import N4ITK, Reference

__all__ = ["CORRECTOR", "AntsN4"]


@dataclass(frozen=True)
class AntsN4(Corrector):
    """ANTs' ``N4BiasFieldCorrection`` with every option of its command line that concerns the field.

    Non-positive voxels are treated as ANTs treats them: those in the mask stay in, with log intensity 0. Voxels that
    were not finite are taken out of the mask. Without a mask, every voxel of the image is used, as ANTs does.
    The result may differ in its last digits between numbers of threads: that is ITK's doing.
    """

    shrink_factor: int = field(default=4, metadata={"help": "Every how many voxels per axis one is used (-s)."})
    iterations: tuple[int, ...] = field(
        default=(50, 50, 50, 50), metadata={"help": "Largest number of iterations, for each level (-c)."}
    )
    tolerance: float = field(default=1e-7, metadata={"help": "Change of the field that ends a level (-c)."})
    mesh: tuple[int, int, int] = field(default=(1, 1, 1), metadata={"help": "Spans per axis at the first level (-b)."})
    spline_distance_mm: float | None = field(
        default=None, metadata={"help": "Span length at the first level in mm, instead of mesh (-b)."}
    )
    fwhm: float = field(default=0.15, metadata={"help": "Width of the sharpening kernel, in log intensity (-t)."})
    wiener_noise: float = field(default=0.01, metadata={"help": "Noise term of the Wiener filter (-t)."})
    bins: int = field(default=200, metadata={"help": "Bins of the intensity histogram (-t)."})

    name: ClassVar[str] = "ants-n4"
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = "N4 as ANTs runs it (antspyx, in process, CPU)"
    references: ClassVar[tuple[Reference, ...]] = (N4ITK,)
    title: ClassVar[str] = "ANTs' N4"
    takes_all_cores: ClassVar[bool] = True  # ITK does
    benchmarked: ClassVar[bool] = False  # the same fields as n4's, many times slower
    uses_device: ClassVar[bool] = False
    uses_weight: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "antspy": {},
        "ants": {"tolerance": 0.0},
        "niworkflows": {"spline_distance_mm": 200.0},
        "niworkflows-final": {"spline_distance_mm": 200.0, "iterations": (50,) * 5},
        "clinica": {"spline_distance_mm": 600.0, "tolerance": 0.0},
    }

    def __post_init__(self):
        _check(self.shrink_factor >= 1, "shrink_factor must be at least 1", self.shrink_factor)
        levels = len(self.iterations) > 0 and all(n >= 1 for n in self.iterations)
        _check(levels, "iterations needs one count of at least 1 for each level", self.iterations)
        _check(self.tolerance >= 0, "tolerance must not be negative", self.tolerance)
        mesh = len(self.mesh) == 3 and all(n >= 1 for n in self.mesh)
        _check(mesh, "mesh needs three counts of at least 1", self.mesh)
        distance = self.spline_distance_mm
        _check(distance is None or distance > 0, "spline_distance_mm must be positive", distance)
        _check(self.fwhm > 0, "fwhm must be positive", self.fwhm)
        _check(self.wiener_noise > 0, "wiener_noise must be positive", self.wiener_noise)
        _check(self.bins >= 2, "bins must be at least 2", self.bins)

    def estimate(self, scan: Scan, *, device: str = "cpu", seed: int = 0) -> Estimate:
        """Run ANTs' N4 and return its log bias field at every voxel of the native grid.

        ``device`` and ``seed`` change nothing: ANTs runs on the CPU and draws nothing at random.

        Raises
        ------
        InvalidMaskError
            No finite voxel is left in the mask.
        """
        mask = scan.valid if scan.mask is None else scan.mask & scan.valid
        if not mask.any():
            raise InvalidMaskError("no finite voxel is left in the mask", next_step="Check the mask and the image.")
        bias = self._run(scan, mask)
        record = {
            "antspyx_version": installed_version("antspyx"),
            "n_voxels_in_mask": int(mask.sum()),
            "n_nonpositive_in_mask": int(np.count_nonzero(scan.data[mask] <= 0)),
        }
        return Estimate(np.log(bias), record)

    def _run(self, scan: Scan, mask: np.ndarray) -> np.ndarray:
        import ants
        from ants.internal import get_lib_fn, get_pointer_string, process_arguments

        def as_ants(array):
            return ants.from_numpy(
                np.ascontiguousarray(array, np.float32), spacing=tuple(map(float, scan.voxel_size_mm))
            )

        image, mask_image = as_ants(scan.data), as_ants(mask)
        weight = None if scan.weight is None else as_ants(scan.weight)
        corrected, bias = image.clone(), image.clone()
        distance = self.spline_distance_mm
        # antspyx's Python function cannot pass -t and rounds a spline distance to whole mm, so its library is called.
        options = {
            "d": 3,
            "i": image,
            "w": weight,
            "s": str(self.shrink_factor),
            "c": f"[{'x'.join(map(str, self.iterations))}, {self.tolerance:.10f}]",
            "b": f"[{distance:.6f}]" if distance is not None else f"[{'x'.join(map(str, self.mesh))}]",
            "t": f"[{self.fwhm:.10f}, {self.wiener_noise:.10f}, {self.bins}]",
            "x": mask_image,
            "r": 0,
            "o": f"[{get_pointer_string(corrected)},{get_pointer_string(bias)}]",
            "v": 0,
        }
        get_lib_fn("N4BiasFieldCorrection")(process_arguments(options))
        return bias.numpy()


def _check(condition: bool, rule: str, value: Any) -> None:
    if not condition:
        raise InvalidParameterError(rule, value=repr(value))


CORRECTOR = AntsN4
