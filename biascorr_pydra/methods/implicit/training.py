"""Train the corrector of 2022 on photographs: implicit loss of the mean-normalized quotient, and idempotence.

``biascorr train implicit --data PHOTOGRAPHS --out FOLDER``

References
----------
Simko et al. MRI bias field correction with an implicitly trained CNN. MIDL, 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from biascorr_pydra.methods.photographs.cards import IMPLICIT
from biascorr_pydra.methods.photographs.losses import economy, idempotence, implicit_mse
from biascorr_pydra.methods.photographs.networks import CELL, ImplicitNet
from biascorr_pydra.methods.photographs.pictures import SIZE
from biascorr_pydra.methods.photographs.training import PhotoTraining
from biascorr_pydra.simulation.gain_fields import random_field_gain
from biascorr_pydra.training.base import option

__all__ = ["TRAINING", "ImplicitTraining"]


@dataclass(frozen=True)
class ImplicitTraining(PhotoTraining):
    """A training run of the corrector of 2022."""

    steps: int = option(6000, "Optimizer steps.")
    learning_rate: float = option(2e-3, "Adam's, at first; it follows a cosine down to 0 at the end.")
    idempotence: float = option(0.1, "Weight of each of the two idempotence terms.")
    economy: float = option(0.008, "Weight of the field found where none was multiplied in; 0 is the paper's loss.")

    method: ClassVar[str] = "implicit"
    text = IMPLICIT

    def build(self) -> ImplicitNet:
        return ImplicitNet()

    def gains(self, generator: torch.Generator) -> list[torch.Tensor]:
        return random_field_gain(self.batch, (SIZE, SIZE // CELL), generator)

    def loss(self, network: torch.nn.Module, batch: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
        slices, with_gain, gain, inside = batch
        images = torch.cat([slices, with_gain])
        fields = network(images)
        without, with_field = fields.chunk(2)
        implicit, invented = implicit_mse(gain, with_field, without, inside).mean(), economy(without, inside).mean()
        row = {"implicit": implicit.detach(), "invented": invented.detach()}
        loss = implicit + self.economy * invented
        if self.idempotence:
            field = functional.interpolate(fields, size=images.shape[2:], mode="bilinear", align_corners=False)
            again = idempotence(network(images * (-field).exp()), torch.cat([inside, inside])).mean()
            # The two terms, of v and of v k, are the two halves of the batch.
            loss, row["again"] = loss + 2 * self.idempotence * again, again.detach()
        return loss, row


TRAINING = ImplicitTraining
