"""N4, exactly: the answer of ITK's N4, many times faster, on CPU and GPU.

N4 alternates between sharpening the histogram of the log intensities and fitting a cubic B-spline to what the
sharpening moved (Tustison 2010). Programs that call themselves N4 differ in what surrounds that: how voxels are picked,
which are left out, how the mesh is laid, when to stop. Each such program is a preset here and agrees with it; see
docs/n4.md.

References
----------
Tustison et al. N4ITK: improved N3 bias correction. IEEE TMI 29(6), 2010. doi:10.1109/TMI.2010.2046908
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan
from biascorr_pydra.methods.reference import N4ITK, Reference

from .parameters import PRESETS, Parameters

__all__ = ["CORRECTOR", "N4", "rescale_intensities"]


@dataclass(frozen=True)
class N4(Parameters, Corrector):
    """N4 with every option of ANTs' and SimpleITK's N4, and presets named after the programs they reproduce."""

    name: ClassVar[str] = "n4"
    uses_weight: ClassVar[bool] = True
    reports_progress: ClassVar[bool] = True
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = (
        "ITK's N4 written again, many times faster; its presets are those of ANTs, SimpleITK and others"
    )
    references: ClassVar[tuple[Reference, ...]] = (N4ITK,)
    title: ClassVar[str] = "N4"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def estimate(
        self,
        scan: Scan,
        *,
        device: str = "cpu",
        seed: int = 0,
        progress: Callable[[int, int, Any], None] | None = None,
    ) -> Estimate:
        """Estimate the log bias of one scan; see :meth:`estimate_batch`. ``seed`` changes nothing."""
        return self.estimate_batch([scan], device=device, progress=progress)[0]

    def estimate_batch(
        self,
        scans: Sequence[Scan],
        *,
        device: str = "cpu",
        seed: int = 0,
        progress: Callable[[int, int, Any], None] | None = None,
    ) -> list[Estimate]:
        """Estimate the log bias of several scans: together on a GPU, one after the other on a CPU.

        Parameters
        ----------
        scans : sequence of Scan
        device : torch device
        seed : changes nothing
        progress : callable, optional
            Called as ``progress(scan, level, facts)``, counted from 0, when a level of a scan ends; ``facts`` has
            ``iterations``, ``convergence`` and ``converged``.

        Returns
        -------
        list of Estimate
            ``record`` holds iterations, convergence and whether it was reached for each level, voxels used and left
            out, and the shrink factors.

        Raises
        ------
        InvalidMaskError
            No usable voxel is left in a mask at the working resolution.
        """
        from . import iterate  # loads torch
        from .prepare import prepare

        settings = iterate.Settings(
            self.iterations,
            self.tolerance,
            self.fwhm,
            self.wiener_noise,
            self.bins,
            self.max_seconds,
            self.precision,
            itk_range=self.histogram_range == "itk",
            itk_convergence=self.convergence_measure == "itk",
        )
        prepared = [prepare(scan, self) for scan in scans]
        estimates: dict[int, Estimate] = {}
        for mesh in dict.fromkeys(p.problem.mesh for p in prepared):
            group = [k for k, p in enumerate(prepared) if p.problem.mesh == mesh]
            tell = progress and (lambda k, *facts, group=group: progress(group[k], *facts))
            solutions = iterate.solve([prepared[k].problem for k in group], settings, device, tell)
            for k, solution in zip(group, solutions, strict=True):
                estimates[k] = prepared[k].estimate(solution)
        return [estimates[k] for k in range(len(scans))]

    def finish(self, corrected: np.ndarray, mask: np.ndarray | None, record: Mapping[str, Any]) -> np.ndarray:
        """ANTs' ``-r``, where it was asked for and there is a mask."""
        limits = record.get("rescale_to")
        return corrected if limits is None or mask is None else rescale_intensities(corrected, mask, limits)


def rescale_intensities(corrected: np.ndarray, mask: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Map corrected intensities linearly so that their minimum and maximum in the mask become ``limits``.

    This is ANTs' ``-r``. It is not part of the bias field, and it makes intensities of different scans no more
    comparable. Voxels outside the mask are left alone, as ANTs leaves them.

    Parameters
    ----------
    corrected : array (I, J, K)
        Image divided by the bias field; the scale of that field does not matter.
    mask : boolean array, same shape
    limits : two floats
        ``record["rescale_to"]`` of the estimate.

    Returns
    -------
    float32 array
    """
    values = corrected[mask]
    low, high = values.min(), values.max()
    out = np.array(corrected, np.float32)
    slope = (limits[1] - limits[0]) / (high - low) if high > low else 0.0
    out[mask] = limits[1] - slope * (high - values)
    return out


CORRECTOR = N4
