"""Train the unsupervised bias corrector (UBC), on the images of a BIDS data set or on heads simulated from label maps.

The loss (:mod:`.entropy`) sees the image only, never a simulated field: the truth serves log and scores.

References
----------
Perez-Caballero et al. Unsupervised Deep Learning Method for MRI Bias Correction. MIDL short papers, 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.metrics import residual_cov, response_slope
from biascorr_pydra.simulation.heads import HeadSampler, inject_bias
from biascorr_pydra.training.base import CardText, Split, Training, option, split_by_subject

from . import entropy
from .card import ADVICE, DEVIATES, FILLED, FOLLOWS, LIMITS, PAPER
from .networks import UBC
from .training_data import Heads, Scans, extra_field, find_files, is_bids, open_heads, open_scans

__all__ = ["TRAINING", "UBCTraining"]

LATTICES = (3, 11)
LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class UBCTraining(Training):
    """A training of UBC."""

    batch: int = option(2, "Images per step.")
    lattice: int = option(7, "Control points of the field per axis, 3 to 11.")
    warm_up: int = option(500, "Steps over which the weight of the roughness grows from 0 to its own.")
    still_after: int = option(50, "Steps after which the statistics of batch normalization stand still.")
    size: int = option(100, "Samples per axis of the network's input. Only weights for 100 can be used to correct.")
    suffixes: str = option("T1w,T2w,FLAIR", "Of a BIDS data set: images with these suffixes, separated by commas.")
    contrasts: str = option("T1w,T2w,FLAIR,random", "Of label maps: contrasts to simulate, separated by commas.")
    stripped: float = option(0.25, "Of label maps: share of heads without anything outside the brain.")

    method = "ubc"
    text = CardText(PAPER, FOLLOWS, FILLED, DEVIATES, LIMITS, ADVICE)

    def __post_init__(self):
        super().__post_init__()
        low, high = LATTICES
        if not low <= self.lattice <= high:
            raise InvalidParameterError(f"lattice lies from {low} to {high}", value=self.lattice)
        for name in ("warm_up", "still_after"):
            if getattr(self, name) < 1:
                raise InvalidParameterError(f"{name} is at least 1", value=getattr(self, name))
        if self.size < 32:
            raise InvalidParameterError("size is at least 32", value=self.size)
        self.sampler()

    def sampler(self) -> HeadSampler:
        """How heads are simulated."""
        return HeadSampler(contrasts=_list(self.contrasts), stripped=self.stripped)

    def split(self) -> Split:
        files = find_files(Path(self.data), _list(self.suffixes))
        return split_by_subject(files, self.held_out, data=self.data)

    def build(self) -> UBC:
        return UBC(self.size, self.lattice)

    def open(self, files: Sequence[Path]) -> Heads | Scans:
        root = Path(self.data)
        return open_scans(files, root, self.size) if is_bids(root) else open_heads(files, self.sampler(), self.size)

    def sample(self, data: Heads | Scans, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return data.draw(self.batch, generator)

    def update(self, network: UBC, optimizers, batch, autocast) -> dict[str, float]:
        network.train()
        done = _steps_done(optimizers[0])
        if done >= self.still_after:
            # Two images say little of the statistics of all. Where these stand still, the network learns to do without
            # those of the batch, as it must when it corrects.
            network.encoder.eval()
        with autocast():
            terms, row = self.terms(network, batch)
        # The roughness has a kink at no field at all, where a new network would stay.
        share = min(1.0, done / self.warm_up)
        loss = entropy.total({**terms, "roughness": share * terms["roughness"]})
        optimizers[0].zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
        optimizers[0].step()
        return {"loss": entropy.total(terms).item(), **{name: float(value) for name, value in row.items()}}

    def loss(self, network: UBC, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
        terms, row = self.terms(network, batch)
        return entropy.total(terms), row

    def terms(self, network: UBC, batch: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The terms of the loss, and their means and what is left of the true field, for the log."""
        log_inverse = network(batch["image"])
        terms = entropy.loss_terms(batch["image"], log_inverse)
        row: dict[str, Any] = {name: values.detach().mean() for name, values in terms.items()}
        if "log_bias" in batch:
            row |= _left_over(batch, log_inverse.detach())
        return terms, row

    def score(self, network: UBC, data: Heads | Scans) -> dict[str, Any]:
        return _score_heads(network, data) if isinstance(data, Heads) else _score_scans(network, data)

    def facts(self, data: Heads | Scans) -> dict[str, Any]:
        return data.facts()


TRAINING = UBCTraining


def _steps_done(optimizer: torch.optim.Optimizer) -> int:
    """Adam counts its steps, and a checkpoint keeps the count."""
    return max((int(state["step"]) for state in optimizer.state.values()), default=0)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _left_over(batch: dict[str, torch.Tensor], log_inverse: torch.Tensor) -> dict[str, float]:
    """Residual coefficient of variation in the brain, mean over the batch, before and after."""
    covs = []
    for truth, brain, estimated in zip(batch["log_bias"], batch["brain"], log_inverse, strict=True):
        inside = truth[brain]
        covs.append([_cov((-inside).exp()), _cov((-estimated[brain].float() - inside).exp())])
    before, after = torch.tensor(covs).mean(0).tolist()
    return {"cov_before": before, "cov_after": after}


def _cov(ratio: torch.Tensor) -> float:
    return (ratio.std(correction=0) / ratio.mean()).item()


def _log_bias(network: UBC, image: np.ndarray) -> np.ndarray:
    device = next(network.parameters()).device
    batch = torch.from_numpy(np.ascontiguousarray(image))[None, None].to(device)
    return -network(batch / batch.mean())[0, 0].cpu().numpy()


def _score_heads(network: UBC, data: Heads) -> dict[str, Any]:
    scores: dict[str, list] = {}
    log_k = extra_field(data.size)
    for contrast, head in data.to_score():
        image, truth, brain = head.image.numpy(), head.log_bias.numpy(), head.brain.numpy()
        estimated = _log_bias(network, image)
        row = {
            "before": residual_cov(np.ones_like(truth), np.exp(truth), brain),
            "residual_cov": residual_cov(np.exp(estimated), np.exp(truth), brain),
            "slope": response_slope(_log_bias(network, inject_bias(image, log_k)) - estimated, log_k, brain),
        }
        scores.setdefault(contrast, []).append(row)
    what = "one head of each contrast and held-out label map; residual_cov in the brain; slope of a further known field"
    means = {c: {k: round(float(np.mean([r[k] for r in rows])), 3) for k in rows[0]} for c, rows in scores.items()}
    return {"what": what, "heads": sum(map(len, scores.values())), **means}


def _score_scans(network: UBC, data: Scans) -> dict[str, Any]:
    rows, log_k = [], extra_field(data.images.shape[-1])
    for image in data.images:
        picture = image[0].float().numpy()
        estimated = _log_bias(network, picture)
        with_k = _log_bias(network, inject_bias(picture, log_k))
        losses = [
            entropy.total(entropy.loss_terms(image[None].float(), torch.from_numpy(log_inverse)[None, None])).item()
            for log_inverse in (np.zeros_like(estimated), -estimated)
        ]
        head = detect_head(picture)
        rows.append([*losses, response_slope(with_k - estimated, log_k, head)])
    before, after, slope = cast("list[float]", np.round(np.mean(rows, 0), 3).tolist())
    what = "loss without a field and with the network's; slope of a further known field over the detected head"
    return {"what": what, "images": len(rows), "loss_before": before, "loss": after, "slope": slope}
