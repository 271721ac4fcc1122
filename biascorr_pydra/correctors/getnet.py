"""GetNet: a network that never saw a medical image, trained implicitly on photographs, slice by slice.

References
----------
Simko et al. Intensity normalization in MRI (GetNet). arXiv:1909.05484, 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .. import networks_2d
from ..errors import InvalidParameterError
from ._base import Corrector, Estimate, Scan
from ._slices import GRID, MOST_PASSES, estimate_by_slices, loaded

__all__ = ["CORRECTOR", "GetNet"]


@dataclass(frozen=True)
class GetNet(Corrector):
    """The implicitly trained corrector of 2019.

    The network sees whole slices, whether or not a mask is given; a mask says where the field counts.
    """

    weights_file: str | None = field(
        default=None,
        metadata={"help": "Weights (.safetensors, with the card beside it) to use instead of the package's own."},
    )
    passes: int = field(
        default=2, metadata={"help": "How often the field is looked for, each time in the scan corrected so far."}
    )

    name: ClassVar[str] = "getnet"
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = "GetNet, implicitly trained on photographs (Simko 2019): slices, a few seconds"
    citation: ClassVar[str] = "Simko et al., arXiv:1909.05484, 2019"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "once": {"passes": 1}}
    grid_shape: ClassVar[tuple[int, int, int]] = GRID
    weights: ClassVar[str] = "getnet"

    def __post_init__(self):
        if not (isinstance(self.passes, int) and 1 <= self.passes <= MOST_PASSES):
            raise InvalidParameterError(f"passes is a whole number from 1 to {MOST_PASSES}", value=self.passes)

    def estimate(self, scan: Scan, *, device: str = "cpu", seed: int = 0) -> Estimate:
        """Estimate the log bias field, as the control points of a cubic B-spline over the grid.

        Nothing is drawn at random: ``seed`` has no effect.

        Raises
        ------
        InvalidImageError
            No voxel is positive.
        WeightsError
            The weights are missing, damaged, or another network's.
        """
        return self.estimate_batch([scan], device=device, seed=seed)[0]

    def estimate_batch(self, scans: Sequence[Scan], *, device: str = "cpu", seed: int = 0) -> list[Estimate]:
        """As :meth:`estimate`, the slices of several scans through the network together."""
        network, sha256 = loaded(networks_2d.GetNet, self.weights_file or type(self).weights, device)
        return estimate_by_slices(network, scans, device=device, passes=self.passes, record={"weights_sha256": sha256})


CORRECTOR = GetNet
