"""The implicitly trained corrector of 2022: a few cosines for each slice, idempotent, trained on photographs.

References
----------
Simko et al. MRI bias field correction with an implicitly trained CNN. MIDL, 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .. import networks_2d
from ..errors import InvalidParameterError
from ._base import Corrector, Estimate, Scan
from ._slices import GRID, MOST_PASSES, estimate_by_slices, loaded

__all__ = ["CORRECTOR", "Implicit"]


@dataclass(frozen=True)
class Implicit(Corrector):
    """The implicitly trained corrector of 2022.

    The network sees whole slices, whether or not a mask is given; a mask says where the field counts.
    """

    weights_file: str | None = field(
        default=None,
        metadata={"help": "Weights (.safetensors, with the card beside it) to use instead of the package's own."},
    )
    passes: int = field(
        default=2, metadata={"help": "How often the field is looked for, each time in the scan corrected so far."}
    )

    name: ClassVar[str] = "implicit"
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = "implicitly trained on photographs, idempotent (Simko 2022): slices, smoothest field"
    citation: ClassVar[str] = "Simko et al., MRI bias field correction with an implicitly trained CNN, MIDL, 2022"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}, "once": {"passes": 1}}
    grid_shape: ClassVar[tuple[int, int, int]] = GRID
    weights: ClassVar[str] = "implicit"

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
        network, sha256 = loaded(networks_2d.ImplicitNet, self.weights_file or type(self).weights, device)
        return estimate_by_slices(network, scans, device=device, passes=self.passes, record={"weights_sha256": sha256})


CORRECTOR = Implicit
