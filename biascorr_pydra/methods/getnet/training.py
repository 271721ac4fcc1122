"""Train GetNet (2019) on photographs: the field multiplied into one must be the quotient of the two fields found.

``biascorr train getnet --data PHOTOGRAPHS --out FOLDER``

References
----------
Simko et al. A generalized network for MRI intensity normalization (GetNet). arXiv:1909.05484, 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from biascorr_pydra.methods.photographs.cards import GETNET
from biascorr_pydra.methods.photographs.losses import economy, implicit_mae
from biascorr_pydra.methods.photographs.networks import CELL, GetNet
from biascorr_pydra.methods.photographs.pictures import SIZE
from biascorr_pydra.methods.photographs.training import PhotoTraining
from biascorr_pydra.simulation.gain_fields import LARGEST_2019, spline_gain
from biascorr_pydra.training.base import option

__all__ = ["TRAINING", "GetNetTraining"]


@dataclass(frozen=True)
class GetNetTraining(PhotoTraining):
    """A training run of GetNet."""

    steps: int = option(6000, "Optimizer steps.")
    learning_rate: float = option(2e-3, "Adam's, at first; it follows a cosine down to 0 at the end.")
    largest: float = option(LARGEST_2019, "The largest inhomogeneity of the fields: they reach from 1 - a to 1 + a.")

    method: ClassVar[str] = "getnet"
    text = GETNET

    def build(self) -> GetNet:
        return GetNet()

    def gains(self, generator: torch.Generator) -> list[torch.Tensor]:
        return spline_gain(self.batch, (SIZE, SIZE // CELL), generator, largest=self.largest)

    def loss(self, network: torch.nn.Module, batch: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
        slices, with_gain, gain, inside = batch
        without, with_field = network(torch.cat([slices, with_gain])).chunk(2)
        implicit, invented = implicit_mae(gain, with_field, without, inside).mean(), economy(without, inside).mean()
        return implicit + self.economy * invented, {"implicit": implicit.detach(), "invented": invented.detach()}


TRAINING = GetNetTraining
