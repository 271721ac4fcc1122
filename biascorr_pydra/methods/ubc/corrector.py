"""UBC: an unsupervised convolutional network that maps an image to the control points of its inverse bias field.

References
----------
Perez-Caballero et al. Unsupervised Deep Learning Method for MRI Bias Correction. MIDL short papers, 2024.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch

from biascorr_pydra import weights
from biascorr_pydra.errors import InvalidImageError, InvalidParameterError
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan
from biascorr_pydra.methods.reference import Reference

from . import entropy, networks

__all__ = ["CORRECTOR", "UBC", "loaded_network"]

MOST_TTT_STEPS = 100
DEFAULT_LATTICE = 7


@dataclass(frozen=True)
class UBC(Corrector):
    """The unsupervised bias corrector.

    The network sees the whole image, as in the paper, whether or not a mask is given: it was trained mostly on whole
    heads, and estimates from a head cut out with its mask were worse.
    """

    flips: bool = field(
        default=False,
        metadata={
            "help": "Test-time augmentation (TTDA): average the log fields of the image and of its three mirror images."
        },
    )
    ttt_steps: int = field(
        default=0,
        metadata={
            "help": "Test-time training (TTT): so many steps, 0 to 100, of training on the image itself, of a copy."
        },
    )
    ttt_learning_rate: float = field(default=3e-4, metadata={"help": "Adam's, in test-time training."})
    weights_file: str | None = field(
        default=None,
        metadata={"help": "Weights (.safetensors, with the card beside it) to use instead of the package's own."},
    )

    name: ClassVar[str] = "ubc"
    version: ClassVar[str] = "2"
    summary: ClassVar[str] = "UBC, unsupervised entropy-trained network (Perez-Caballero 2024): fast, one pass"
    references: ClassVar[tuple[Reference, ...]] = (
        Reference(
            "perezcaballero2024",
            "Perez-Caballero M, Morell-Ortega S, Ruiz-Perez M, Coupé P, Manjón JV",
            "Unsupervised Deep Learning Method for MRI Bias Correction",
            "Medical Imaging with Deep Learning (MIDL), short papers",
            2024,
        ),
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "ttda": {"flips": True},
        "ttda-ttt": {"flips": True, "ttt_steps": 20},
    }
    grid_shape: ClassVar[tuple[int, int, int]] = (100, 100, 100)
    weights: ClassVar[str] = "ubc"

    def __post_init__(self):
        steps, rate = self.ttt_steps, self.ttt_learning_rate
        if not isinstance(self.flips, bool):
            raise InvalidParameterError("flips is true or false", value=repr(self.flips))
        if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps <= MOST_TTT_STEPS:
            raise InvalidParameterError(f"ttt_steps is a whole number from 0 to {MOST_TTT_STEPS}", value=repr(steps))
        if not isinstance(rate, int | float) or not 0 < rate <= 0.1:
            raise InvalidParameterError("ttt_learning_rate lies between 0 and 0.1", value=repr(rate))

    def estimate(self, scan: Scan, *, device: str = "cpu", seed: int = 0) -> Estimate:
        """Estimate the log bias field, as the control points of a cubic B-spline over the grid, 7 x 7 x 7 by default.

        ``seed`` draws the mirror images that test-time training sees; nothing else is drawn at random. The number of
        threads makes no difference, except to test-time training: it adds up gradients, and its fields differed by
        up to 1e-3 (in the log) between one thread and two.

        Raises
        ------
        InvalidImageError
            No voxel is positive.
        WeightsError
            The weights are missing, damaged, or another network's.
        """
        return self.estimate_batch([scan], device=device, seed=seed)[0]

    def estimate_batch(self, scans: Sequence[Scan], *, device: str = "cpu", seed: int = 0) -> list[Estimate]:
        """As :meth:`estimate`, several scans through the network at once; test-time training takes them in turn.

        Where test-time training does not lower the loss on the image, the estimate is the one without it.
        """
        images, means = zip(*[_divided_by_mean(scan.data) for scan in scans], strict=True)
        source = self.weights_file or type(self).weights
        sha256 = weights.sha256_of(source)
        network = loaded_network(source, sha256, device)
        images = torch.from_numpy(np.stack(images))[:, None].to(device)
        records = [{"weights_sha256": sha256, "image_mean": mean} for mean in means]
        if self.ttt_steps:
            by_image = []
            for image, record in zip(images.split(1), records, strict=True):
                trained, before, after = self._trained_on(network, image, seed)
                better = after < before  # false, too, where training ran into values that are no numbers
                record |= {"ttt_loss": [before, after if math.isfinite(after) else None], "ttt_used": better}
                by_image.append(self._lattices(trained if better else network, image))
            lattices = torch.cat(by_image)
        else:
            lattices = self._lattices(network, images)
        estimates = []
        for scan, record, lattice in zip(scans, records, lattices[:, 0].double().cpu().numpy(), strict=True):
            record |= {"control_points": list(lattice.shape)}
            estimates.append(Estimate(LogBiasSpline.spanning(-lattice, scan.data.shape), record))
        return estimates

    def _lattices(self, network: networks.UBC, images: torch.Tensor) -> torch.Tensor:
        """Log control points of the inverse fields, (B, 1, n, n, n)."""
        with torch.inference_mode():
            lattice = network.log_lattice(images)
            if not self.flips:
                return lattice
            # A mirror image's lattice is the lattice's mirror image: one axis after another is turned over and back.
            mirrored = [network.log_lattice(images.flip(axis)).flip(axis) for axis in (2, 3, 4)]
            return torch.stack([lattice, *mirrored]).mean(0)

    def _trained_on(self, network: networks.UBC, image: torch.Tensor, seed: int) -> tuple[networks.UBC, float, float]:
        """A copy of the network, trained further on one image, and the loss on the image before and after."""
        network = copy.deepcopy(network)
        optimizer = torch.optim.Adam(network.parameters(), self.ttt_learning_rate)
        generator = torch.Generator().manual_seed(seed)

        def loss(seen: torch.Tensor) -> torch.Tensor:
            return entropy.total(entropy.loss_terms(seen, network(seen)))

        with torch.inference_mode():
            before = loss(image).item()
        with torch.inference_mode(False), torch.enable_grad():
            for _ in range(self.ttt_steps):
                flips = [axis for axis in (2, 3, 4) if torch.rand((), generator=generator) < 0.5]
                optimizer.zero_grad()
                loss(image.flip(flips)).backward()
                optimizer.step()
        with torch.inference_mode():
            return network, before, loss(image).item()


def _divided_by_mean(data: np.ndarray) -> tuple[np.ndarray, float]:
    data = np.clip(data, 0, None)
    mean = float(data.mean(dtype=np.float64))
    if not mean > 0:
        raise InvalidImageError("the image has positive voxels", value=f"mean {mean:g}")
    return (data / mean).astype(np.float32), mean


@lru_cache(maxsize=4)
def loaded_network(source: str, sha256: str, device: str) -> networks.UBC:
    """The network with these weights, in evaluation mode on the device."""
    # The hash is part of the key so that weights that change on disk are read again.
    training = weights.card_of(source).get("training")
    network = networks.UBC(lattice=training.get("lattice", DEFAULT_LATTICE) if training else DEFAULT_LATTICE)
    weights.load_network(network, source)
    return network.eval().to(device)


CORRECTOR = UBC
