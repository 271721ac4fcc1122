"""Two-dimensional networks from a slice to the logarithm of its gain field: ``nn.Module`` classes and nothing else.

Tensor axes are (B, 1, I, J). Both see a slice twice, as it is and as its logarithm: a gain field adds to the latter.
"""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["GetNet", "ImplicitNet", "cosines"]

FLOOR = 0.02


def _two_views(image: torch.Tensor) -> torch.Tensor:
    """(B, 1, I, J) of about 0 to 1 -> (B, 2, I, J): the image, and its logarithm, both around 0."""
    return torch.cat([image - 0.5, (image.clamp(min=0) + FLOOR).log() * 0.5 + 0.5], 1)


class _Block(nn.Module):
    """A residual block (He et al. 2015): two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.one = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.two = nn.Conv2d(after, after, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm_one, self.norm_two = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.shortcut = nn.Identity()
        if stride > 1 or before != after:
            self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.norm_two(self.two(self.norm_one(self.one(x)).relu_()))
        return inner.add_(self.shortcut(x)).relu_()


class GetNet(nn.Module):
    """The network of 2019: a modified ResNet, 256 x 256 samples of an image to 16 x 16 of its log gain field.

    A convolution of stride 4, then residual blocks; those at 1/16 of the resolution are dilated, so that each sample
    of the field comes from the whole slice. The last convolution begins at zero: an untrained network gives a gain of 1.

    References
    ----------
    Simko et al. Intensity normalization of MRI using implicitly trained networks ("GetNet"). arXiv:1909.05484, 2019.
    """

    def __init__(self, channels: tuple[int, int, int, int] = (24, 32, 48, 64)):
        super().__init__()
        b, c, d, e = channels
        self.stem = nn.Sequential(
            nn.Conv2d(2, b, 5, 4, padding=2, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(
            _Block(b, c, stride=2),
            _Block(c, d, stride=2),
            _Block(d, e, dilation=2),
            _Block(e, e, dilation=4),
            _Block(e, e, dilation=2),
        )
        self.head = nn.Conv2d(e, 1, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Log gain, (B, 1, 16, 16), of slices (B, 1, 256, 256) of about 0 to 1; each sample stands for 16 x 16."""
        return self.head(self.blocks(self.stem(_two_views(image))))


class ImplicitNet(nn.Module):
    """The network of 2022: residual blocks of stride 2 down to 4 x 4, whose output is a field's first 4 x 4 cosines.

    Parameters
    ----------
    size : samples per axis of the image, a multiple of 64
    samples : samples per axis at which the field is given

    The gain is kept between 0.5 and 2. The last layer begins at zero: an untrained network gives a gain of 1.

    References
    ----------
    Simko et al. MRI bias field correction with an implicitly trained CNN. MIDL, 2022.
    """

    COSINES = 4
    LIMIT = math.log(2)

    def __init__(self, size: int = 256, samples: int = 16, channels: tuple[int, ...] = (12, 24, 32, 48, 64, 64)):
        super().__init__()
        first = channels[0]
        self.stem = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        )
        pairs = zip((first, *channels), channels, strict=False)
        last = len(channels) - 1
        self.blocks = nn.Sequential(*[_Block(m, n, stride=1 if i == last else 2) for i, (m, n) in enumerate(pairs)])
        self.head = nn.Linear(channels[-1] * (size // 64) ** 2, self.COSINES**2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("basis", cosines(samples, self.COSINES), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Log gain, (B, 1, 16, 16), of slices (B, 1, 256, 256) of about 0 to 1."""
        coefficients = self.head(self.blocks(self.stem(_two_views(image))).flatten(1))
        coefficients = coefficients.reshape(-1, 1, self.COSINES, self.COSINES)
        return (self.basis @ coefficients @ self.basis.mT).clamp(-self.LIMIT, self.LIMIT)


def cosines(samples: int, n: int) -> torch.Tensor:
    """The first ``n`` cosines of the inverse discrete cosine transform at cell centres, orthonormal: (samples, n)."""
    position = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples
    basis = torch.cos(math.pi * position[:, None] * torch.arange(n, dtype=torch.float64))
    basis = basis * math.sqrt(2)
    basis[:, 0] = 1
    return basis.float()
