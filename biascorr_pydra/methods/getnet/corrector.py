"""GetNet: a network that never saw a medical image, trained implicitly on photographs, slice by slice.

References
----------
Simko et al. A generalized network for MRI intensity normalization (GetNet). arXiv:1909.05484, 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from biascorr_pydra.methods.photographs.networks import GetNet as Network
from biascorr_pydra.methods.photographs.slices import SliceCorrector
from biascorr_pydra.methods.reference import Reference

__all__ = ["CORRECTOR", "GetNet"]


@dataclass(frozen=True)
class GetNet(SliceCorrector):
    """The implicitly trained corrector of 2019."""

    name: ClassVar[str] = "getnet"
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = "GetNet, implicitly trained on photographs (Simko 2019): slices, a few seconds"
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "simko2019",
            "Simkó A, Löfstedt T, Garpebring A, Nyholm T, Jonsson J",
            "A Generalized Network for MRI Intensity Normalization",
            "arXiv:1909.05484",
            2019,
        ),
    )
    weights: ClassVar[str] = "getnet"
    network: ClassVar[type] = Network


CORRECTOR = GetNet
