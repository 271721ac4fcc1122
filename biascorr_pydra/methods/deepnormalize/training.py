"""Train DeepNormalize on the scans of several sites, and the baselines of its paper.

Generator and segmenter learn against a discriminator that tells the sites' patches, and generated ones, apart.

References
----------
Delisle et al. Realistic image normalization for multi-domain segmentation. Medical Image Analysis, 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.training.base import CardText, Split, Training, option, split_by_subject

from .card import ADVICE, DEVIATES, FILLED, FOLLOWS, LIMITS, PAPER
from .losses import adversarial_loss, dice_loss, discriminator_loss
from .networks import PAPER_WIDTH, DeepNormalize
from .score import score_scans
from .training_data import Patches, SiteScan, find_scans, open_scans, read_scan

__all__ = ["TRAINING", "DeepNormalizeTraining"]

MODELS = ("deepnormalize", "standardization", "segmenter")
SCHEDULES = ("paper", "cosine")
#: Share of the run from which generator and segmenter learn at a tenth and at a hundredth: epochs 50 and 75 of 120.
MILESTONES = (50 / 120, 75 / 120)


@dataclass(frozen=True)
class DeepNormalizeTraining(Training):
    """A training of DeepNormalize; ``data`` is a BIDS data set with a site column, or a folder of one a site."""

    batch: int = option(8, "Patches per update of any of the networks, as many of each site as can be.")
    adversarial_weight: float = option(1.5, "Lambda of the paper; 0 is its baseline Pre-processor.")
    model: str = option(
        "deepnormalize", "deepnormalize; or a segmenter alone, of z-scores (standardization) or not (segmenter)."
    )
    discriminator_steps: int = option(3, "Updates of the discriminator for each of generator and segmenter.")
    discriminator_rate: float = option(1e-4, "Adam's learning rate for the discriminator, at first.")
    weight_decay: float = option(1e-3, "Adam's, for all networks.")
    warm_up: int = option(200, "Steps at first in which the generator learns to return its input.")
    schedule: str = option("paper", "Of the learning rates: paper (a tenth from 42% on, a hundredth from 62%), cosine.")
    width: int = option(PAPER_WIDTH, "First filters of generator and segmenter.")
    discriminator_width: int = option(64, "First filters of the discriminator.")
    bias_share: float = option(0.5, "Share of patches that a random linear field degrades.")
    suffixes: str = option("T1w", "Modalities that go in together, separated by commas; the others on T1w's grid.")
    derivatives: str = option("derivatives", "Folder, in each data set, of the data set with dseg (1 GM, 2 WM, 3 CSF).")

    method = "deepnormalize"
    text = CardText(PAPER, FOLLOWS, FILLED, DEVIATES, LIMITS, ADVICE)

    def __post_init__(self):
        super().__post_init__()
        for name, choices in (("model", MODELS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise InvalidParameterError(f"{name} is one of {', '.join(choices)}", value=getattr(self, name))
        for name in ("discriminator_steps", "width", "discriminator_width"):
            if getattr(self, name) < 1:
                raise InvalidParameterError(f"{name} is at least 1", value=getattr(self, name))
        for name, high in (("adversarial_weight", 100), ("weight_decay", 1), ("bias_share", 1), ("warm_up", 1e6)):
            if not 0 <= getattr(self, name) <= high:
                raise InvalidParameterError(f"{name} lies between 0 and {high:g}", value=getattr(self, name))
        if not 0 < self.discriminator_rate <= 1:
            raise InvalidParameterError("discriminator_rate lies between 0 and 1", value=self.discriminator_rate)

    @property
    def generates(self) -> bool:
        """Whether there is a generator."""
        return self.model == "deepnormalize"

    @property
    def schedule_in_words(self) -> str:
        """The learning rates' schedule, for the card."""
        if self.schedule == "cosine":
            return f"cosine; {super().schedule_in_words}"
        return "paper: Adam; generator and segmenter at a tenth from 42% of the run on and at a hundredth from 62%"

    @property
    def z_scores(self) -> bool:
        """Whether the networks see standardized intensities."""
        return self.model == "standardization"

    def scans(self) -> dict[Path, SiteScan]:
        """The study's scans."""
        suffixes = tuple(part.strip() for part in self.suffixes.split(",") if part.strip())
        return find_scans(self.data, suffixes, self.derivatives)

    def sites(self) -> list[str]:
        """The domains, sorted."""
        return sorted({scan.site for scan in self.scans().values()})

    def network_arguments(self) -> dict[str, Any]:
        """What the network is made with; the card keeps it."""
        return {
            "width": self.width,
            "channels": len(next(iter(self.scans().values())).files),
            "domains": len(self.sites()),
            "generates": self.generates,
            "discriminator_width": self.discriminator_width,
        }

    # --- what a training fills in

    def split(self) -> Split:
        return split_by_subject(sorted(self.scans()), self.held_out, data=self.data)

    def build(self) -> DeepNormalize:
        # torch declares memory_format for no form of Module.to.
        network = DeepNormalize(**self.network_arguments())
        return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def open(self, files: Sequence[Path]) -> _Opened:
        return _Opened(self, tuple(files))

    def sample(self, data: _Opened, generator: torch.Generator) -> dict[str, Any]:
        patches = data.patches()
        drawn: dict[str, Any] = {"learn": patches.draw(self.batch, generator)}
        if self.generates and self.adversarial_weight:
            drawn["tell"] = [patches.draw(self.batch, generator) for _ in range(self.discriminator_steps)]
        return drawn

    def optimizers(self, network: DeepNormalize) -> list[torch.optim.Optimizer]:
        networks = [network.segmenter, *([network.generator] if self.generates else [])]
        learning = [parameter for part in networks if part for parameter in part.parameters()]
        return [
            torch.optim.Adam(learning, self.learning_rate, weight_decay=self.weight_decay),
            torch.optim.Adam(
                network.discriminator.parameters(), self.discriminator_rate, weight_decay=self.weight_decay
            ),
        ]

    def rate_factors(self, progress: float) -> list[float]:
        if self.schedule == "cosine":
            return super().rate_factors(progress) * 2
        factor = 0.1 ** sum(progress >= milestone for milestone in MILESTONES)
        # The paper lowers the discriminator's on a plateau of a validation loss; there is none here.
        return [factor, 1.0 if progress < MILESTONES[1] else 0.1]

    def update(self, network: DeepNormalize, optimizers, batch: dict[str, Any], autocast) -> Mapping[str, float]:
        """Algorithm 1: the discriminator so often, then segmenter and generator once; first of all the warm-up."""
        network.train()
        learns, tells = optimizers
        steps = _steps_done(learns)
        row = {"discriminator": float("nan"), "accuracy": float("nan")}
        if "tell" in batch and steps >= self.warm_up:
            network.discriminator.train()
            for drawn in batch["tell"]:
                with autocast():
                    loss, row["accuracy"] = _tell_apart(network, drawn)
                _step(loss, tells)
                row["discriminator"] = float(loss.detach())
        with autocast():
            if self.generates and steps < self.warm_up:
                loss, terms = _warm(network, batch["learn"])
            else:
                loss, terms = self.loss(network, batch)
        _step(loss, learns)
        finite = {name: row[name] if np.isfinite(row[name]) else 0.0 for name in row}
        return {"loss": float(loss.detach()), **{name: float(value) for name, value in terms.items()}, **finite}

    def loss(self, network: DeepNormalize, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        drawn = batch["learn"]
        normalized, logits = network(_fast(drawn["image"]))
        loss = dice = dice_loss(logits.float().softmax(1), drawn["truth"])
        fooled = torch.zeros(())
        if self.generates and self.adversarial_weight:
            # As it is: with the statistics of generated patches alone it would answer otherwise.
            network.discriminator.eval()
            # Its gradients reach the discriminator too; they are cleared before its next step and never used.
            fooled = adversarial_loss(network.discriminator(normalized).float())
            loss = dice + self.adversarial_weight * fooled
        return loss, {"dice_loss": dice.detach(), "adversarial": fooled.detach(), "identity": 0.0}

    def score(self, network: DeepNormalize, data: _Opened) -> dict[str, Any]:
        return score_scans(network, data.read(), self.sites(), z_scores=self.z_scores)

    def facts(self, data: _Opened) -> dict[str, Any]:
        return data.patches().facts()

    def card_facts(self, network: DeepNormalize) -> dict[str, Any]:
        return {"network": self.network_arguments(), "paper_width": PAPER_WIDTH, "sites": self.sites()}


TRAINING = DeepNormalizeTraining


class _Opened:
    """Files of a split: patches of them to train on, or whole scans to score on, read when they are needed."""

    def __init__(self, config: DeepNormalizeTraining, files: tuple[Path, ...]):
        self.config, self.files = config, files

    @lru_cache(maxsize=1)  # noqa: B019 (lives as long as the training)
    def patches(self) -> Patches:
        config = self.config
        return open_scans(
            self.files, config.scans(), config.sites(), bias_share=config.bias_share, z_scores=config.z_scores
        )

    def read(self):
        """The whole scans, one at a time."""
        scans = self.config.scans()
        return (read_scan(scans[file]) for file in self.files)


def _fast(patches: torch.Tensor) -> torch.Tensor:
    return patches.contiguous(memory_format=torch.channels_last_3d)


def _step(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _tell_apart(network: DeepNormalize, drawn: dict[str, torch.Tensor]) -> tuple[torch.Tensor, float]:
    """The discriminator's loss on a batch, and the share of patches that it classifies rightly."""
    with torch.no_grad():
        generated = network.normalize(_fast(drawn["image"]))
    real, fake = network.discriminator(torch.cat([_fast(drawn["real"]), generated])).float().chunk(2)
    last = real.shape[1] - 1
    right = torch.cat([real.argmax(1) == drawn["domain"], fake.argmax(1) == last])
    return discriminator_loss(real, drawn["domain"], fake), float(right.float().mean())


def _warm(network: DeepNormalize, drawn: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
    """The generator returns its input, the segmenter learns on what it returns."""
    image = _fast(drawn["image"])
    normalized = network.normalize(image)
    identity = functional.mse_loss(normalized.float(), image)
    dice = dice_loss(network.segmenter(normalized.detach()).float().softmax(1), drawn["truth"])
    return dice + 10 * identity, {"dice_loss": dice.detach(), "adversarial": 0.0, "identity": identity.detach()}


def _steps_done(optimizer: torch.optim.Optimizer) -> int:
    """Adam counts its steps, and a checkpoint keeps the count."""
    return max((int(state["step"]) for state in optimizer.state.values()), default=0)
