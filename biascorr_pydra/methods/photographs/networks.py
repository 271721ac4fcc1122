"""Two-dimensional networks from a slice to the logarithm of its gain field: ``nn.Module`` classes and nothing else.

Tensor axes are (B, 1, I, J), of slices 256 x 256, and the field is given as 16 x 16 samples, each of a cell of 16 x 16.

Both networks have one shortcut from input to output: the image's own log intensity, smoothed, to which the residual
blocks add what keeps anatomy out of it. A gain field multiplied into the image passes through the shortcut as it is, so
that a network answers to it from the first step of training; without its blocks a network is a homomorphic filter.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn
from torch.nn import functional

__all__ = ["CELL", "GetNet", "ImplicitNet", "cosines", "log_cells"]

FLOOR = 0.02
LEAST = 1e-3
CELL = 16
DARK = 0.08
EMPTY = 1e-3
SMOOTHING_CELLS = 0.7


def log_cells(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log intensity by cells, dark places counting less.

    Parameters
    ----------
    image : tensor (B, 1, I, J), of about 0 to 1

    Returns
    -------
    sums : tensor (B, 1, I / 16, J / 16)
        Mean over each cell of weight times log intensity.
    weights : tensor, same shape
        Mean weight, image^2 / (image^2 + 0.08^2): half at 0.08, little where there is but noise.
    """
    image = image.clamp(min=LEAST)
    square = image * image
    weight = square / (square + DARK**2)
    return functional.avg_pool2d(weight * image.log(), CELL), functional.avg_pool2d(weight, CELL)


def _two_views(image: torch.Tensor) -> torch.Tensor:
    """(B, 1, I, J) of about 0 to 1 -> (B, 2, I, J): the image, and its logarithm, both around 0."""
    return torch.cat([image - 0.5, (image.clamp(min=0) + FLOOR).log() * 0.5 + 0.5], 1)


def _full_precision(image: torch.Tensor) -> torch.autocast:
    return torch.autocast(image.device.type, enabled=False)


class _Block(nn.Module):
    """A residual block (He et al. 2015): two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.one = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.two = nn.Conv2d(after, after, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm_one, self.norm_two = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.norm_two(self.two(self.norm_one(self.one(x)).relu_()))
        return inner.add_(self.shortcut(x)).relu_()


class GetNet(nn.Module):
    """The network of 2019: a modified ResNet, 256 x 256 samples of an image to 16 x 16 of its log gain field.

    A convolution of stride 4, then residual blocks; those at 1/16 of the resolution are dilated, so that each sample
    of the field comes from the whole slice. The shortcut is the normalized convolution of log intensity with a Gaussian
    of 0.7 cells. The last convolution begins at zero.

    References
    ----------
    Simko et al. A generalized network for MRI intensity normalization (GetNet). arXiv:1909.05484, 2019.
    """

    gaussian: torch.Tensor

    def __init__(self, channels: tuple[int, int, int, int] = (24, 32, 48, 64), samples: int = 16):
        super().__init__()
        a, b, c, d = channels
        self.stem = nn.Sequential(
            nn.Conv2d(2, a, 5, 4, padding=2, bias=False), nn.BatchNorm2d(a), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(
            _Block(a, b, stride=2),
            _Block(b, c, stride=2),
            _Block(c, d, dilation=2),
            _Block(d, d, dilation=4),
            _Block(d, d, dilation=2),
        )
        self.head = nn.Conv2d(d, 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(torch.Tensor, self.head.bias))
        self.register_buffer("gaussian", _gaussian(samples), persistent=False)

    def shortcut(self, image: torch.Tensor) -> torch.Tensor:
        """The image's log intensity, smoothed: (B, 1, 16, 16)."""
        with _full_precision(image):
            sums, weights = log_cells(image.float())
            smooth = self.gaussian @ torch.cat([sums, weights], 1) @ self.gaussian
            return smooth[:, :1] / (smooth[:, 1:] + EMPTY)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Log gain, (B, 1, 16, 16), of slices (B, 1, 256, 256) of about 0 to 1; its additive constant is free."""
        return self.shortcut(image) + self.head(self.blocks(self.stem(_two_views(image)))).float()


def _gaussian(samples: int) -> torch.Tensor:
    at = torch.arange(samples)
    return torch.exp(-0.5 * ((at[:, None] - at[None]) / SMOOTHING_CELLS) ** 2)


class ImplicitNet(nn.Module):
    """The network of 2022: residual blocks of stride 2 down to 4 x 4, whose output is a field's first 4 x 4 cosines.

    The shortcut is the weighted least-squares fit of these cosines to the image's log intensity. In evaluation the gain
    is kept between 0.5 and 2. The last layer begins at zero.

    Parameters
    ----------
    size : samples per axis of the image, a multiple of 64
    channels : of the residual blocks

    References
    ----------
    Simko et al. MRI bias field correction with an implicitly trained CNN. MIDL, 2022.
    """

    COSINES = 4
    LIMIT = math.log(2)
    RIDGE = 0.003

    basis: torch.Tensor
    frequency: torch.Tensor

    def __init__(self, size: int = 256, channels: tuple[int, ...] = (12, 24, 32, 48, 64, 64)):
        super().__init__()
        first = channels[0]
        self.stem = nn.Sequential(
            nn.Conv2d(2, first, 5, 4, padding=2, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True)
        )
        pairs = zip((first, *channels), channels, strict=False)
        self.blocks = nn.Sequential(*[_Block(m, n, stride=1 + (i < 4)) for i, (m, n) in enumerate(pairs)])
        self.head = nn.Linear(channels[-1] * (size // 64) ** 2, self.COSINES**2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        basis = cosines(size // CELL, self.COSINES)
        self.register_buffer("basis", torch.einsum("ai,bj->abij", basis, basis).flatten(2).flatten(0, 1), False)
        self.samples = size // CELL
        # Squared frequency of each cosine: where a slice is dark the fit is to level off, not to swing.
        order = torch.arange(self.COSINES, dtype=torch.float32) ** 2
        self.register_buffer("frequency", (order[:, None] + order[None]).flatten() + EMPTY, False)

    def shortcut(self, image: torch.Tensor) -> torch.Tensor:
        """Coefficients (B, 16) of the cosines fitted to the image's log intensity."""
        with _full_precision(image):
            sums, weights = log_cells(image.float())
            gram = self.basis.mT @ (weights.flatten(1)[:, :, None] * self.basis)
            scale = weights.mean((1, 2, 3))[:, None, None] * len(self.basis) + EMPTY
            gram = gram + self.RIDGE * scale * torch.diag(self.frequency)
            right = sums.flatten(1) @ self.basis
            return torch.cholesky_solve(right[:, :, None], torch.linalg.cholesky(gram))[:, :, 0]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Log gain, (B, 1, 16, 16), of slices (B, 1, 256, 256) of about 0 to 1, of mean 0."""
        features = self.blocks(self.stem(_two_views(image))).flatten(1)
        # So many features that Adam's first steps on each would add up to a field of several octaves.
        residual = self.head(features / math.sqrt(features.shape[1])).float()
        with _full_precision(image):
            # The first cosine is the constant, which is free.
            field = (self.shortcut(image) + residual)[:, 1:] @ self.basis[:, 1:].mT
        field = field.unflatten(1, (1, self.samples, self.samples))
        # Clipped in training, a field would no longer be told which way to go.
        return field if self.training else field.clamp(-self.LIMIT, self.LIMIT)


def cosines(samples: int, n: int) -> torch.Tensor:
    """The first ``n`` cosines of the inverse discrete cosine transform at cell centres, orthonormal: (samples, n)."""
    position = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples
    basis = torch.cos(math.pi * position[:, None] * torch.arange(n, dtype=torch.float64))
    basis = basis * math.sqrt(2)
    basis[:, 0] = 1
    return basis.float()
