"""UBC: an unsupervised convolutional network that maps an image to the control points of its inverse bias field.

References
----------
Perez-Caballero et al. Unsupervised Deep Learning Method for MRI Bias Correction. MIDL short papers, 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch

from .. import networks, weights
from ..errors import InvalidImageError
from ..field import LogBiasSpline
from ._base import Corrector, Estimate, Scan

__all__ = ["CORRECTOR", "UBC"]


@dataclass(frozen=True)
class UBC(Corrector):
    """The unsupervised bias corrector.

    The network sees the whole image, as in the paper, whether or not a mask is given: it was trained mostly on whole
    heads, and estimates from a head cut out with its mask were worse.
    """

    weights_file: str | None = field(
        default=None,
        metadata={"help": "Weights (.safetensors, with the card beside it) to use instead of the package's own."},
    )

    name: ClassVar[str] = "ubc"
    version: ClassVar[str] = "1"
    summary: ClassVar[str] = "UBC, unsupervised entropy-trained network (Perez-Caballero 2024): fast, one pass"
    citation: ClassVar[str] = (
        "Perez-Caballero et al., Unsupervised Deep Learning Method for MRI Bias Correction, MIDL short papers, 2024"
    )
    grid_shape: ClassVar[tuple[int, int, int]] = (100, 100, 100)
    weights: ClassVar[str] = "ubc"

    def estimate(self, scan: Scan, *, device: str = "cpu", seed: int = 0) -> Estimate:
        """Estimate the log bias field, as the 7 x 7 x 7 control points of a cubic B-spline over the grid.

        Nothing is drawn at random: ``seed`` has no effect.

        Raises
        ------
        InvalidImageError
            No voxel is positive.
        WeightsError
            The weights are missing, damaged, or another network's.
        """
        return self.estimate_batch([scan], device=device, seed=seed)[0]

    def estimate_batch(self, scans: Sequence[Scan], *, device: str = "cpu", seed: int = 0) -> list[Estimate]:
        """As :meth:`estimate`, several scans through the network at once."""
        images, means = zip(*[_divided_by_mean(scan.data) for scan in scans], strict=True)
        source = self.weights_file or type(self).weights
        sha256 = weights.sha256_of(source)
        network = _network(source, sha256, device)
        with torch.inference_mode():
            lattices = network.log_lattice(torch.from_numpy(np.stack(images))[:, None].to(device))
        estimates = []
        for scan, mean, lattice in zip(scans, means, lattices[:, 0].double().cpu().numpy(), strict=True):
            record = {"weights_sha256": sha256, "control_points": list(lattice.shape), "image_mean": mean}
            estimates.append(Estimate(LogBiasSpline.spanning(-lattice, scan.data.shape), record))
        return estimates


def _divided_by_mean(data: np.ndarray) -> tuple[np.ndarray, float]:
    data = np.clip(data, 0, None)
    mean = float(data.mean(dtype=np.float64))
    if not mean > 0:
        raise InvalidImageError("the image has positive voxels", value=f"mean {mean:g}")
    return (data / mean).astype(np.float32), mean


@lru_cache(maxsize=4)
def _network(source: str, sha256: str, device: str) -> networks.UBC:
    # The hash is part of the key so that weights that change on disk are read again.
    network = networks.UBC()
    weights.load_network(network, source)
    return network.eval().to(device)


CORRECTOR = UBC
