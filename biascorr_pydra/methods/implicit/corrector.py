"""The implicitly trained corrector of 2022: a few cosines for each slice, idempotent, trained on photographs.

References
----------
Simko et al. MRI bias field correction with an implicitly trained CNN. MIDL, 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from biascorr_pydra.methods.photographs.networks import ImplicitNet
from biascorr_pydra.methods.photographs.slices import SliceCorrector
from biascorr_pydra.methods.reference import Reference

__all__ = ["CORRECTOR", "Implicit"]


@dataclass(frozen=True)
class Implicit(SliceCorrector):
    """The implicitly trained corrector of 2022."""

    name: ClassVar[str] = "implicit"
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = "implicitly trained on photographs, idempotent (Simko 2022): slices, smoothest field"
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "simko2022",
            "Simkó A, Löfstedt T, Garpebring A, Nyholm T, Jonsson J",
            "MRI bias field correction with an implicitly trained CNN",
            "Medical Imaging with Deep Learning (MIDL)",
            2022,
        ),
    )
    weights: ClassVar[str] = "implicit"
    network: ClassVar[type] = ImplicitNet


CORRECTOR = Implicit
