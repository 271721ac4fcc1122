"""Train the unsupervised bias corrector (UBC) on heads simulated from label maps.

The loss sees the image only, never the simulated field: the truth serves the log and the scores.

``python -m biascorr_pydra.train.ubc --data LABEL_MAPS --out FOLDER``

References
----------
Perez-Caballero et al. Unsupervised Deep Learning Method for MRI Bias Correction. MIDL short papers, 2024. Equation 2.
Ashburner. Another MRI bias correction approach. HBM, 2002 (entropy of log intensities).
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch
from torch.nn import functional

from .. import weights
from ..errors import InvalidParameterError
from ..image import write_atomic
from ..metrics import residual_cov
from ..networks import UBC
from ..simulate import HeadSampler, SimulatedHead, load_label_map, simulate_head
from ._log import Log
from ._ubc_card import DEVIATES, FILLED, FOLLOWS, LIMITS, PAPER

__all__ = ["TERMS", "UBCTraining", "entropy", "foreground", "loss_terms", "soft_histogram", "train"]

BINS = 200
LOG_RANGE = (-2.5, 1.5)
LOG_GRADIENT_RANGE = (-4.0, 1.0)
FLOOR = 0.02
ROUGHNESS_LENGTH = 10
TERMS = {"entropy": 2.0, "gradient_entropy": 1.0, "roughness": 1.0, "spread": 1.0}


# --- the loss


def soft_histogram(
    values: torch.Tensor, weights: torch.Tensor, low: float, high: float, bins: int = BINS
) -> torch.Tensor:
    """Differentiable histogram: a kernel density estimate with a Gaussian of one bin, at the cost of a histogram.

    Each value is shared linearly between the two nearest bin centres, and the counts are convolved with the Gaussian.

    Parameters
    ----------
    values, weights : tensor, shape (B, N)
        Values outside the range count in the end bins.
    low, high : float
        Edges of the first and last bin.

    Returns
    -------
    tensor, shape (B, bins); each row sums to 1.
    """
    position = ((values - low) * (bins / (high - low)) - 0.5).clamp(0, bins - 1)
    index = position.detach().floor().clamp(max=bins - 2).long()
    upper = (position - index) * weights
    counts = values.new_zeros(values.shape[0], bins)
    counts = counts.scatter_add(1, index, weights - upper).scatter_add(1, index + 1, upper)
    kernel = torch.exp(-0.5 * torch.arange(-4, 5, device=values.device, dtype=values.dtype) ** 2)
    # Mirrored at the end bins, so that the kernel does not carry counts away over the ends.
    padded = functional.pad(counts[:, None], (4, 4), mode="reflect")
    smooth = functional.conv1d(padded, (kernel / kernel.sum())[None, None])[:, 0]
    return smooth / smooth.sum(1, keepdim=True)


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Shannon entropy in nats of each row of a (B, bins) tensor: (B,)."""
    return -torch.xlogy(probabilities, probabilities.clamp(min=1e-12)).sum(1)


def foreground(image: torch.Tensor) -> torch.Tensor:
    """Where the loss is taken: voxels brighter than the image's mean, as 0 and 1. (B, 1, I, J, K) in and out."""
    return (image > image.mean((2, 3, 4), keepdim=True)).to(image.dtype)


def _mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum((1, 2, 3, 4), keepdim=True) / mask.sum((1, 2, 3, 4), keepdim=True)


def loss_terms(image: torch.Tensor, log_inverse: torch.Tensor) -> dict[str, torch.Tensor]:
    """The four terms of Equation 2, each of shape (B,), before their weights ``TERMS``.

    Parameters
    ----------
    image : tensor, shape (B, 1, I, J, K)
        Acquired image, of any scale.
    log_inverse : tensor, same shape
        Log of the inverse bias field; its additive constant has no effect.

    Returns
    -------
    entropy : of log Y over the foreground, in nats; Y the corrected image with foreground mean 1
    gradient_entropy : of log(\\|grad Y\\| + 0.02), forward differences per voxel, over the foreground
    roughness : mean over the grid of the sum of \\|dB\\| along the three axes, per tenth of the image's extent
    spread : absolute difference of the standard deviations over the foreground before and after
    """
    mask = foreground(image)
    before = image / _mean(image, mask)
    inverse = log_inverse.exp()
    scale = _mean(before * inverse, mask)
    after, inverse = before * inverse / scale, inverse / scale
    flat, counted = after.flatten(1), mask.flatten(1)
    log_after = flat.clamp(min=FLOOR).log()
    gradient, inside = _gradient_magnitude(after, mask)
    log_gradient = (gradient.flatten(1) + FLOOR).log()
    steps = [
        torch.diff(inverse, dim=axis).abs().mean((1, 2, 3, 4)) * ((n - 1) / ROUGHNESS_LENGTH)
        for axis, n in zip((2, 3, 4), inverse.shape[2:], strict=True)
    ]
    deviations = [_mean((x - 1) ** 2, mask).flatten().sqrt() for x in (before, after)]
    return {
        "entropy": entropy(soft_histogram(log_after, counted, *LOG_RANGE)),
        "gradient_entropy": entropy(soft_histogram(log_gradient, inside.flatten(1), *LOG_GRADIENT_RANGE)),
        "roughness": sum(steps),
        "spread": (deviations[0] - deviations[1]).abs(),
    }


def _gradient_magnitude(image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    here = (..., slice(None, -1), slice(None, -1), slice(None, -1))
    square, inside = 0, mask[here]
    for axis in (2, 3, 4):
        n = image.shape[axis]
        ahead = [slice(None), slice(None), *[slice(1, n) if a == axis else slice(None, -1) for a in (2, 3, 4)]]
        square = square + (image[tuple(ahead)] - image[here]) ** 2
        inside = inside * mask[tuple(ahead)]
    return (square + 1e-8).sqrt(), inside


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    """Weighted sum of the terms, averaged over the batch: the loss."""
    return sum(weight * terms[name] for name, weight in TERMS.items()).mean()


# --- training


@dataclass(frozen=True)
class UBCTraining:
    """A training run.

    Attributes
    ----------
    data : folder of label maps (.nii.gz, FreeSurfer numbers)
    out : folder for checkpoint.pt, log.tsv, ubc.safetensors and ubc.json
    steps : optimizer steps
    batch : heads per step
    learning_rate : of Adam, at first; it follows a cosine down to 0 at the end
    seed : of the network, the heads and the flips
    held_out : so many label maps, the last by name, are never trained on
    minutes : end after so long in all, if the steps are not done by then; None for no bound
    checkpoint_every, log_every : steps
    threads : CPU threads
    device : torch device
    """

    data: str
    out: str
    steps: int = 2000
    batch: int = 4
    learning_rate: float = 1e-3
    seed: int = 0
    held_out: int = 2
    minutes: float | None = None
    checkpoint_every: int = 100
    log_every: int = 20
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self):
        for name in ("steps", "batch", "checkpoint_every", "log_every", "threads"):
            if getattr(self, name) < 1:
                raise InvalidParameterError(f"{name} is at least 1", value=getattr(self, name))
        if not 0 < self.learning_rate <= 1:
            raise InvalidParameterError("learning_rate lies between 0 and 1", value=self.learning_rate)
        if self.held_out < 0:
            raise InvalidParameterError("held_out is 0 or more", value=self.held_out)
        if self.minutes is not None and self.minutes <= 0:
            raise InvalidParameterError("minutes is positive", value=self.minutes)

    def split(self) -> tuple[list[Path], list[Path]]:
        """Label maps to train on, and those held out.

        Raises
        ------
        InvalidParameterError
            None is left to train on.
        """
        files = sorted(Path(self.data).glob("*.nii.gz"))
        if len(files) <= self.held_out:
            raise InvalidParameterError(
                f"the data folder holds more label maps (.nii.gz) than the {self.held_out} held out",
                file=self.data,
                value=f"{len(files)} files",
            )
        cut = len(files) - self.held_out
        return files[:cut], files[cut:]


class _Run:
    """The state that a checkpoint keeps: network, optimizer, schedule, generator and step."""

    def __init__(self, config: UBCTraining):
        self.config = config
        torch.manual_seed(config.seed)
        self.network = UBC().to(config.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), config.learning_rate)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.step, self.seconds = 0, 0.0
        self.file = Path(config.out) / "checkpoint.pt"

    def settings(self) -> dict:
        """What must not change when a run goes on; bounds, places and hardware may."""
        free = ("out", "data", "minutes", "checkpoint_every", "log_every", "threads", "device")
        return {name: value for name, value in asdict(self.config).items() if name not in free}

    def progress(self) -> float:
        """How much of the run is done, by steps or by time, whichever ends it first."""
        bound = 60 * self.config.minutes if self.config.minutes else math.inf
        return max(self.step / self.config.steps, self.seconds / bound)

    def set_learning_rate(self) -> None:
        rate = self.config.learning_rate * (1 + math.cos(math.pi * min(1, self.progress()))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def save(self) -> None:
        state = {
            "config": self.settings(),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step,
            "seconds": self.seconds,
        }
        write_atomic(self.file, lambda stream: torch.save(state, stream))

    def resume(self) -> bool:
        if not self.file.is_file():
            return False
        state = torch.load(self.file, weights_only=True, map_location="cpu")
        if state["config"] != self.settings():
            raise InvalidParameterError(
                "a run goes on with the settings it began with",
                file=self.file,
                value=state["config"],
                next_step="Use another output folder, or remove the checkpoint to begin anew.",
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.step, self.seconds = state["step"], state["seconds"]
        return True


def draw(
    label_maps: Sequence[torch.Tensor], sampler: HeadSampler, batch: int, generator: torch.Generator, size: int = 100
) -> tuple[torch.Tensor, list[SimulatedHead]]:
    """A batch of simulated images of mean 1, (B, 1, size, size, size), randomly flipped, and their truth."""
    heads = []
    for _ in range(batch):
        labels = label_maps[int(torch.randint(len(label_maps), (), generator=generator))]
        flips = [axis for axis in range(3) if torch.rand((), generator=generator) < 0.5]
        head = simulate_head(labels, sampler.sample(generator), (size,) * 3)
        heads.append(SimulatedHead(**{name: value.flip(flips) for name, value in vars(head).items()}))
    images = torch.stack([head.image for head in heads])[:, None]
    return images / images.mean((2, 3, 4), keepdim=True), heads


def train_step(network, optimizer, images: torch.Tensor) -> tuple[dict[str, float], torch.Tensor]:
    """One optimizer step; returns the mean of each term and the loss, and the log inverse fields."""
    network.train()
    log_inverse = network(images)
    terms = loss_terms(images, log_inverse)
    loss = total(terms)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"loss": loss.item(), **{name: t.mean().item() for name, t in terms.items()}}, log_inverse.detach()


def train(config: UBCTraining, sampler: HeadSampler | None = None) -> dict:
    """Train, or go on from the last checkpoint in the output folder, and write weights and card there.

    Without a time bound, the same configuration gives the same weights on one machine and thread count, whether or not
    the run was interrupted.

    Returns
    -------
    The card.
    """
    sampler = sampler or HeadSampler()
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    files, held_out = config.split()
    label_maps = [load_label_map(file) for file in files]
    run = _Run(config)
    log = Log(out / "log.tsv", run.step if run.resume() else None)
    began = time.monotonic() - run.seconds
    while run.progress() < 1:
        run.set_learning_rate()
        images, heads = draw(label_maps, sampler, config.batch, run.generator)
        row, log_inverse = train_step(run.network, run.optimizer, images.to(config.device))
        run.step += 1
        run.seconds = time.monotonic() - began
        log.add({**row, **_left_over(heads, log_inverse.cpu())})
        if run.step % config.log_every == 0 or run.progress() >= 1:
            log.write(run.step, run.seconds)
        if run.step % config.checkpoint_every == 0 or run.progress() >= 1:
            run.save()
    card = _card(config, sampler, run, files, held_out)
    return weights.save(run.network.state_dict(), card, out / "ubc.safetensors")


def _left_over(heads: Sequence[SimulatedHead], log_inverse: torch.Tensor) -> dict[str, float]:
    """Residual coefficient of variation in the brain, mean over the batch, before and after."""
    before, after = [], []
    for head, estimate in zip(heads, log_inverse[:, 0], strict=True):
        truth, brain = head.log_bias.exp().numpy(), head.brain.numpy()
        before.append(residual_cov(torch.ones_like(estimate).numpy(), truth, brain))
        after.append(residual_cov((-estimate).exp().numpy(), truth, brain))
    return {"cov_before": sum(before) / len(before), "cov_after": sum(after) / len(after)}


def _card(config: UBCTraining, sampler: HeadSampler, run: _Run, files: list[Path], held_out: list[Path]) -> dict:
    return {
        "method": "ubc",
        "paper": PAPER,
        "follows": FOLLOWS,
        "filled": FILLED,
        "deviates": DEVIATES,
        "training": {
            **run.settings(),
            "steps_done": run.step,
            "optimizer": "Adam, learning rate down to 0 along a cosine over the steps, or the time allowed",
            "histogram_range": {"log Y": LOG_RANGE, "log(|grad Y| + 0.02)": LOG_GRADIENT_RANGE},
            "hardware": f"{config.device}, {config.threads} thread(s), {platform.machine()}",
            "minutes": round(run.seconds / 60, 1),
            "torch": torch.__version__,
        },
        "training_data": {
            "trained_on": [file.name for file in files],
            "held_out": [file.name for file in held_out],
            "simulator": asdict(sampler),
        },
        "limits": LIMITS,
        "date": date.today().isoformat(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: one option for each field of :class:`UBCTraining`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = {name: f.default for name, f in UBCTraining.__dataclass_fields__.items()}
    parser.add_argument("--data", required=True, help="folder of label maps")
    parser.add_argument("--out", required=True, help="folder for checkpoint, log, weights and card")
    for name, default in list(defaults.items())[2:]:
        kind = float if name in ("minutes", "learning_rate") else type(default)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    card = train(UBCTraining(**vars(parser.parse_args(argv))))
    done = card["training"]
    print(f"{done['steps_done']} steps, {done['minutes']} minutes, sha256 {card['sha256']}")


if __name__ == "__main__":
    main()
