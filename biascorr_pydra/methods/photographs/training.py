"""What the two implicit trainings share: photographs, their split, batches with a known gain field, and scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.nn import functional

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.training.base import Split, Training, option, split_by_subject

from .losses import centered
from .networks import CELL
from .pictures import (
    CUT_OUT,
    MOST_NOISE,
    POWERED,
    RIMMED,
    SIZE,
    draw_slices,
    find_photographs,
    noisy,
)
from .pictures import read_photographs as read

__all__ = ["PhotoTraining", "sample_pairs", "score_responses"]

SCORED_BATCHES, SCORED_SEED = 12, 1


@dataclass(frozen=True)
class PhotoTraining(Training):
    """Training on photographs: of a folder, or of its train and val folders."""

    batch: int = option(8, "Photographs per step.")
    held_out: str = option("0.1", "Photographs never trained on, unless the data folder has train and val folders.")
    economy: float = option(0.15, "Weight of the field found where none was multiplied in; 0 is the paper's loss.")
    plain: bool = option(False, "Photographs as they are: no random intensities, background or noise.")

    def __post_init__(self):
        super().__post_init__()
        if not self.economy >= 0:
            raise InvalidParameterError("economy is 0 or more", value=self.economy)

    def split(self) -> Split:
        """The folder's train and val folders, or some of its own photographs held out.

        Raises
        ------
        InvalidParameterError
            There are no photographs, or nothing is left to train on.
        """
        root = Path(self.data)
        if (root / "train").is_dir() and (root / "val").is_dir():
            return Split(find_photographs(root / "train"), find_photographs(root / "val"))
        return split_by_subject(find_photographs(root), self.held_out, data=root)

    def open(self, files: Sequence[Path]) -> list[torch.Tensor]:
        """Grey values in memory, uint8."""
        return read(files)

    @abstractmethod
    def gains(self, generator: torch.Generator) -> list[torch.Tensor]:
        """A batch of known gain fields at 256 and at 16 samples per axis."""

    def sample(self, data: list[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
        """See :func:`sample_pairs`."""
        return sample_pairs(data, self.gains(generator), generator, plain=self.plain)

    def score(self, network: torch.nn.Module, data: list[torch.Tensor]) -> dict[str, Any]:
        """Of photographs as they are, and as they are trained on."""
        device = next(network.parameters()).device
        scores = {}
        for name, plain in (("photographs as they are", True), ("as trained on", False)):
            generator = torch.Generator().manual_seed(SCORED_SEED)
            pairs = [sample_pairs(data, self.gains(generator), generator, plain=plain) for _ in range(SCORED_BATCHES)]
            scores[name] = score_responses(network, [[part.to(device) for part in pair] for pair in pairs])
        return scores

    def facts(self, data: list[torch.Tensor]) -> dict[str, Any]:
        """How the photographs are drawn."""
        if self.plain:
            return {"crops": f"{SIZE} x {SIZE}, flipped and turned at random"}
        return {
            "crops": f"{SIZE} x {SIZE}, flipped and turned at random",
            "intensities": f"{POWERED:.0%} to a random power, the others to 3 to 6 classes of random intensity",
            "background": f"{CUT_OUT:.0%} cut out in a random shape, {RIMMED:.0%} of these with rims",
            "noise": f"of the magnitude, standard deviation up to {MOST_NOISE}, the image and the one with the field "
            "each its own",
        }


def sample_pairs(
    photographs: Sequence[torch.Tensor],
    gains: Sequence[torch.Tensor],
    generator: torch.Generator,
    *,
    plain: bool = False,
) -> list[torch.Tensor]:
    """Slices without and with a known gain field.

    Parameters
    ----------
    photographs : from :func:`._photographs.read_photographs`
    gains : fields k of a batch at 256 and at 16 samples per axis, (B, 1, 256, 256) and (B, 1, 16, 16)
    plain : photographs as they are

    Returns
    -------
    v, v k : (B, 1, 256, 256), each with noise of its own, as scanners add it after the field
    k : (B, 1, 16, 16)
    inside : (B, 1, 16, 16), how much of each cell is not background
    """
    gain, gain_of_cells = gains
    batch = len(gain)
    slices, inside = draw_slices(photographs, batch, generator, plain=plain)
    deviation = (not plain) * MOST_NOISE * torch.rand(batch, 1, 1, 1, generator=generator) ** 2
    pair = [noisy(image, deviation, generator) for image in (slices, slices * gain)]
    return [*pair, gain_of_cells, functional.avg_pool2d(inside, CELL)]


def score_responses(
    network: torch.nn.Module, batches: Sequence[Sequence[torch.Tensor]], passes: int = 1
) -> dict[str, float]:
    """How a network answers to known fields, over batches from :func:`sample_pairs`.

    From the second of several ``passes`` on, it sees slices corrected so far, as the correctors do.

    Returns
    -------
    response_slope : least-squares slope of log G(v k) - log G(v) on log k; 1 is right
    response_rmse : root mean square of their difference
    invented : root mean square of log G(v), its mean apart: what is found where nothing was multiplied in
    known : root mean square of log k
    invented_by_low_pass : as invented, by the network's shortcut alone: the image's log intensity smoothed
    """
    sums = torch.zeros(6, dtype=torch.float64)
    for slices, with_gain, gain, inside in batches:
        field, multiplied = _log_field(network, slices, passes), _log_field(network, with_gain, passes)
        known, answer = centered(gain.log(), inside), centered(multiplied - field, inside)
        field, filtered = centered(field, inside), centered(low_pass(network, slices), inside)
        terms = (answer * known, known**2, (answer - known) ** 2, field**2, filtered**2, torch.ones_like(known))
        sums += torch.stack([(inside * term).sum() for term in terms]).double().cpu()
    product, square, error, invented, filtered, count = sums.tolist()
    scores = {
        "response_slope": product / square,
        "response_rmse": (error / count) ** 0.5,
        "invented": (invented / count) ** 0.5,
        "known": (square / count) ** 0.5,
        "invented_by_low_pass": (filtered / count) ** 0.5,
    }
    return {name: round(value, 4) for name, value in scores.items()}


def _log_field(network: torch.nn.Module, slices: torch.Tensor, passes: int) -> torch.Tensor:
    field = network(slices)
    for _ in range(passes - 1):
        full = functional.interpolate(field, size=slices.shape[2:], mode="bilinear", align_corners=False)
        corrected = (slices * (-centered(full, torch.ones_like(full))).exp()).clamp(max=1)
        field = field + network(corrected)
    return field


def low_pass(network: torch.nn.Module, slices: torch.Tensor) -> torch.Tensor:
    """The field of the network's shortcut alone, (B, 1, 16, 16)."""
    log_field = cast("Callable[[torch.Tensor], torch.Tensor]", network.shortcut)(slices)
    if log_field.ndim == 2:
        basis = cast(torch.Tensor, network.basis)
        log_field = (log_field @ basis.mT).unflatten(1, (1, network.samples, network.samples))
    return log_field
