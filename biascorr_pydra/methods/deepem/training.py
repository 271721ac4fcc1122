"""Train deepem's two networks on heads simulated from label maps: first where tissue is expected, then what is pure.

The networks are taught to name tissue; the true field enters only as a first field that is nearly right, in a share
of the second stage's samples. The field itself has no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional

from biascorr_pydra import weights
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.metrics import residual_cov
from biascorr_pydra.simulation.heads import HeadSampler
from biascorr_pydra.training.base import CardText, Split, Training, option, split_by_subject

from . import pure_tissue
from .card import ADVICE, DEVIATES, FILLED, FOLLOWS, LIMITS, PAPER
from .corrector import DeepEM
from .networks import CLASSES, TissueNetworks, TissuePrior
from .training_data import ClassedHeads, label_maps, open_classed

__all__ = ["TRAINING", "DeepEMTraining"]

STAGES = ("prior", "pure")
WARM_UP = 100
LARGEST_GRADIENT = 1.0
BRAIN_COUNTS, OUTSIDE_COUNTS = 4.0, 0.2  # in the first stage and in the second
PATCH = 48
NEARLY_RIGHT = 0.3  # share of samples of the second stage that begin from nearly the true field
LEAST_BRAIN = 3000


@dataclass(frozen=True)
class DeepEMTraining(Training):
    """A training of one of deepem's networks; the other is kept as it is."""

    stage: str = option("prior", "Which network: prior (first), or pure (then, with --start).")
    start: str = option("", "Weights to begin from; stage pure needs those of stage prior.")
    batch: int = option(3, "Heads per step (stage prior), or patches of 48^3 of one head (stage pure).")
    learning_rate: float = option(4e-3, "AdamW's, at first; it follows a cosine down to 0 at the end.")
    contrasts: str = option("T1w,T1w,T2w,FLAIR,random", "Contrasts to simulate; one named twice comes twice as often.")
    stripped: float = option(0.3, "Share of heads without anything outside the brain.")
    view: tuple[float, float] = option((0.9, 1.6), "Least and largest field of view, relative to the head.")

    method = "deepem"
    text = CardText(PAPER, FOLLOWS, FILLED, DEVIATES, LIMITS, ADVICE)

    def __post_init__(self):
        super().__post_init__()
        if self.stage not in STAGES:
            raise InvalidParameterError(f"stage is one of {', '.join(STAGES)}", value=repr(self.stage))
        if self.stage == "pure" and not self.start:
            raise InvalidParameterError(
                "stage pure begins from the weights of stage prior", next_step="Give --start FILE.safetensors."
            )
        self.sampler()

    def sampler(self) -> HeadSampler:
        """How heads are simulated."""
        contrasts = tuple(part.strip() for part in self.contrasts.split(",") if part.strip())
        return HeadSampler(
            contrasts=contrasts,
            stripped=self.stripped,
            max_rotation_degrees=18,
            field_of_view=self.view,
            max_translation=0.06,
        )

    def split(self) -> Split:
        return split_by_subject(label_maps(Path(self.data)), self.held_out, data=self.data)

    def build(self) -> TissueNetworks:
        networks = TissueNetworks()
        if self.start:
            weights.load_network(networks, self.start)
        # torch declares memory_format for no form of Module.to.
        return networks.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def open(self, files: Sequence[Path]) -> ClassedHeads:
        return open_classed(files, self.sampler())

    def facts(self, data: ClassedHeads) -> dict[str, Any]:
        return data.facts()

    def optimizers(self, network: TissueNetworks) -> list[torch.optim.Optimizer]:
        trained = getattr(network, self.stage)
        return [torch.optim.AdamW(trained.parameters(), self.learning_rate, weight_decay=1e-4)]

    def sample(self, data: ClassedHeads, generator: torch.Generator) -> dict[str, torch.Tensor]:
        if self.stage == "prior":
            heads = [data.draw(generator) for _ in range(self.batch)]
            return {name: torch.stack([head[name] for head in heads]) for name in ("image", "classes")}
        while True:
            head = data.draw(generator)
            inside = head["classes"].nonzero()
            if len(inside) >= LEAST_BRAIN:
                break
        centres = inside[torch.randint(len(inside), (self.batch,), generator=generator)]
        nearly = torch.rand((), generator=generator) < NEARLY_RIGHT
        left = data.small_field(generator)
        corners = (centres - PATCH // 2).clamp(0, pure_tissue.SIZE - PATCH)
        return {**head, "corners": corners, "nearly": nearly, "left": left}

    def update(self, network: TissueNetworks, optimizers, batch, autocast) -> dict[str, float]:
        network.eval()
        trained = getattr(network, self.stage)
        trained.train()
        (optimizer,) = optimizers
        done = max((int(state["step"]) for state in optimizer.state.values()), default=0)
        for group in optimizer.param_groups:
            group["lr"] *= min(1, (done + 1) / WARM_UP)
        with autocast():
            logits, wanted = self._logits(network, batch, autocast)
        loss, row = self.loss_of(logits.float(), wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        return {"loss": float(loss.detach()), **row}

    def loss(self, network: TissueNetworks, batch) -> tuple[torch.Tensor, dict[str, Any]]:
        logits, wanted = self._logits(network, batch, nullcontext)
        return self.loss_of(logits.float(), wanted)

    def _logits(self, network: TissueNetworks, batch, autocast) -> tuple[torch.Tensor, torch.Tensor]:
        """The network's answer, and the classes, or their shares at half the resolution."""
        if self.stage == "prior":
            shares = functional.one_hot(batch["classes"], CLASSES).movedim(-1, 1).float()
            features = TissuePrior.features(batch["image"]).contiguous(memory_format=torch.channels_last_3d)
            return network.prior(features), functional.avg_pool3d(shares, 2)
        with torch.no_grad():
            seen = self._seen(network, batch, autocast)
        wanted = batch["pure"]
        patches = [tuple(slice(int(a), int(a) + PATCH) for a in corner) for corner in batch["corners"]]
        stacked = torch.stack([seen[(slice(None), *patch)] for patch in patches])
        logits = network.pure(stacked.contiguous(memory_format=torch.channels_last_3d))
        return logits, torch.stack([wanted[patch] for patch in patches])

    def _seen(self, network: TissueNetworks, batch, autocast) -> torch.Tensor:
        image = batch["image"]
        prior = pure_tissue.expected(network.prior, image[None], autocast)[0]
        brain = prior[0] < 0.5
        if brain.sum() < LEAST_BRAIN:
            brain = batch["classes"] > 0
        if batch["nearly"]:
            log_bias = batch["log_bias"]
        else:
            everywhere = np.ones(image.shape, bool)
            scan = Scan(image.cpu().numpy(), everywhere, None, (2.0, 2.0, 2.0))
            log_bias = DeepEM().first_field(scan, brain, str(image.device))
        log_image = pure_tissue.log_intensity(image, brain, log_bias + batch["left"])
        return pure_tissue.seen(prior, pure_tissue.posterior(log_image, prior), log_image)

    def loss_of(self, logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of a network's answer (B, classes, I, J, K), and numbers for the log."""
        if self.stage == "prior":
            each = -(wanted * logits.log_softmax(1)).sum(1)
            counts = 1 + (BRAIN_COUNTS - 1) * (1 - wanted[:, 0])
            right = (logits.argmax(1) == wanted.argmax(1)).float()
        else:
            each = functional.cross_entropy(logits, wanted, reduction="none")
            counts = torch.where(wanted == 0, OUTSIDE_COUNTS, 1.0)
            right = (logits.argmax(1) == wanted).float()
        total = counts.sum()
        return (each * counts).sum() / total, {"accuracy": float((right * counts).sum() / total)}

    def score(self, network: TissueNetworks, data: ClassedHeads) -> dict[str, Any]:
        return _score_prior(network, data) if self.stage == "prior" else _score_fields(network, data)


TRAINING = DeepEMTraining


def _score_prior(network: TissueNetworks, data: ClassedHeads) -> dict[str, Any]:
    dices: dict[str, list[float]] = {}
    for contrast, head in data.to_score():
        prior = pure_tissue.expected(network.prior, head.image[None], nullcontext)[0]
        brain = prior[0] < 0.5
        dice = 2 * (brain & head.brain).sum() / (brain.sum() + head.brain.sum())
        dices.setdefault(contrast, []).append(dice.item())
    return {"what": "Dice of the brain", **{name: round(float(np.mean(dice)), 3) for name, dice in dices.items()}}


def _score_fields(network: TissueNetworks, data: ClassedHeads) -> dict[str, Any]:
    corrector = DeepEM()
    scores: dict[str, list[dict[str, float]]] = {}
    for contrast, head in data.to_score():
        scan = Scan(head.image.numpy(), np.ones(head.image.shape, bool), None, (2.0, 2.0, 2.0))
        spline = cast(LogBiasSpline, corrector.estimate_with(network, scan).log_bias)
        estimated = spline.on_grid(head.image.shape)
        truth, brain = np.exp(head.log_bias.numpy()), head.brain.numpy()
        row = {
            "before": residual_cov(np.ones_like(truth), truth, brain),
            "residual_cov": residual_cov(np.exp(estimated), truth, brain),
        }
        scores.setdefault(contrast, []).append(row)
    means = {c: {k: round(float(np.mean([r[k] for r in rows])), 3) for k in rows[0]} for c, rows in scores.items()}
    return {
        "what": "one whole head of each contrast and held-out label map, smooth field; residual_cov in the brain",
        **means,
    }
