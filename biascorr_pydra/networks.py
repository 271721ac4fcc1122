"""Neural networks: ``nn.Module`` classes and nothing else. Tensor axes are (B, 1, I, J, K)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from .field import bspline_basis, evaluate_tensor

__all__ = ["UBC"]


class UBC(nn.Module):
    """The unsupervised bias corrector's network: an image to the control points of its inverse bias field.

    Four 3 x 3 x 3 convolutions of 16, 32, 64 and 128 filters with stride 2, each followed by ReLU and batch
    normalization, take 100 samples per axis to 50, 25, 13 and 7; a 1 x 1 x 1 convolution gives one positive control
    point for each of the 7 x 7 x 7 places. Its parameters begin at zero: an untrained network gives a field of 1.

    Each control point is a function of the 31 samples per axis around its place. All 7 belong to the mesh, which has 4
    spans of 25 samples, whereas the places are 16 samples apart: the outer ones lie beyond the image.

    Parameters
    ----------
    size : int
        Samples per axis of the image. The lattice has ``ceil(size / 16)`` control points per axis, at least 4.
    filters : four ints

    References
    ----------
    Perez-Caballero et al. Unsupervised Deep Learning Method for MRI Bias Correction. MIDL short papers, 2024.
    """

    def __init__(self, size: int = 100, filters: tuple[int, int, int, int] = (16, 32, 64, 128)):
        super().__init__()
        layers, before = [], 1
        for n in filters:
            layers += [nn.Conv3d(before, n, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.BatchNorm3d(n)]
            before = n
        self.encoder = nn.Sequential(*layers)
        self.head = nn.Conv3d(before, 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        basis = bspline_basis(np.arange(size), -(-size // 16), first=0, last=size - 1)
        self.register_buffer("basis", torch.as_tensor(basis, dtype=torch.float32), persistent=False)

    def log_lattice(self, image: torch.Tensor) -> torch.Tensor:
        """Log control points of the inverse field, (B, 1, 7, 7, 7), of images (B, 1, 100, 100, 100) of mean 1."""
        return self.head(self.encoder(image))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Log of the inverse bias field, (B, 1, 100, 100, 100): the corrected image is ``image * exp`` of it."""
        return evaluate_tensor(self.log_lattice(image), [self.basis] * 3)
