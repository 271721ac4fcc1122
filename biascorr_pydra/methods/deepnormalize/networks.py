"""DeepNormalize's networks: ``nn.Module`` classes and nothing else. Tensor axes are (B, C, I, J, K).

References
----------
Delisle et al. Realistic image normalization for multi-domain segmentation. Medical Image Analysis, 2022 (the paper).
Çiçek et al. 3D U-Net: learning dense volumetric segmentation from sparse annotation. MICCAI 2016.
Radford et al. Unsupervised representation learning with deep convolutional generative adversarial networks. ICLR 2016.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["CLASSES", "PAPER_WIDTH", "DeepNormalize", "Discriminator", "UNet3d"]

#: The segmenter's classes, in the order of its channels.
CLASSES = ("BG", "CSF", "GM", "WM")
#: First filters of the 3-D U-Net that the paper's networks have.
PAPER_WIDTH = 32


class UNet3d(nn.Module):
    """The 3-D U-Net with up-sampling and concatenation in place of transposed convolutions (section 2.1 of the paper).

    Each level has two 3 x 3 x 3 convolutions, each followed by batch normalization and ReLU: with ``width`` w the
    encoder has w-2w, 2w-4w, 4w-8w and, at the bottom, 8w-16w filters, the decoder 8w-8w, 4w-4w and 2w-2w; w is 32 in
    the paper. A 1 x 1 x 1 convolution ends it.

    Parameters
    ----------
    channels, outputs : int
        Of the input and of the output.
    width : int
        Filters of the first convolution.
    """

    def __init__(self, channels: int, outputs: int, width: int):
        super().__init__()
        self.channels = channels
        w = width
        self.down = nn.ModuleList([_two(a, b, 2 * b) for a, b in ((channels, w), (2 * w, 2 * w), (4 * w, 4 * w))])
        self.bottom = _two(8 * w, 8 * w, 16 * w)
        self.up = nn.ModuleList([_two(3 * n, n, n) for n in (8 * w, 4 * w, 2 * w)])
        self.last = nn.Conv3d(2 * w, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, channels, I, J, K) to (B, outputs, I, J, K); I, J and K are multiples of 8."""
        kept = []
        for level in self.down:
            x = level(x)
            kept.append(x)
            x = functional.max_pool3d(x, 2)
        x = self.bottom(x)
        for level in self.up:
            x = level(torch.cat([functional.interpolate(x, scale_factor=2.0, mode="nearest"), kept.pop()], 1))
        return self.last(x)


def _two(before: int, middle: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in ((before, middle), (middle, after)):
        # No bias: batch normalization would take it away again.
        layers += [nn.Conv3d(a, b, 3, padding=1, bias=False), nn.BatchNorm3d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Discriminator(nn.Module):
    """The (K + 1)-class classifier: four convolutions with LeakyReLU and dropout, and a linear layer.

    As in DCGAN the convolutions are of 4 samples with stride 2, with twice the filters each, and all but the first are
    followed by batch normalization. The input is centred.

    Parameters
    ----------
    channels : int
    classes : int
        K domains and one class, the last, for generated patches.
    size : int
        Samples per axis of a patch, a multiple of 16.
    width : int
        Filters of the first convolution.
    dropout : float
    """

    def __init__(self, channels: int, classes: int, size: int = 32, width: int = 16, dropout: float = 0.25):
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for depth in range(4):
            n = width * 2**depth
            layers.append(nn.Conv3d(before, n, 4, stride=2, padding=1))
            layers += [nn.BatchNorm3d(n)] if depth else []
            layers += [nn.LeakyReLU(0.2), nn.Dropout(dropout)]
            before = n
        self.features = nn.Sequential(*layers)
        self.last = nn.Linear(before * (size // 16) ** 3, classes)

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of patches (B, channels, size, size, size), whose values are about 0 to 1."""
        return self.last(self.features(4 * (patch - 0.5)).flatten(1))


class DeepNormalize(nn.Module):
    """Generator, segmenter and discriminator.

    Parameters
    ----------
    width : int
        First filters of generator and segmenter; 32 in the paper.
    channels : int
        Modalities.
    domains : int
        K, the number of sites.
    generates : bool
        Without a generator this is the paper's baseline "Standardization": the segmenter sees the input.
    size, discriminator_width : see :class:`Discriminator`
    """

    def __init__(
        self,
        width: int = 8,
        channels: int = 1,
        domains: int = 2,
        *,
        generates: bool = True,
        size: int = 32,
        discriminator_width: int = 16,
    ):
        super().__init__()
        self.generator = UNet3d(channels, channels, width) if generates else None
        self.segmenter = UNet3d(channels, len(CLASSES), width)
        self.discriminator = Discriminator(channels, domains + 1, size, discriminator_width)

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """Normalized patches (B, C, I, J, K), from 0 to 1, of scaled ones; 0 where the input is exactly 0.

        Outside the brain the input is 0. A sigmoid never is, which alone would tell generated patches from real ones.
        """
        if self.generator is None:
            return x
        return torch.sigmoid(self.generator(x)) * (x != 0)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalized patches and the logits (B, 4, I, J, K) of their :data:`CLASSES`."""
        normalized = self.normalize(x)
        return normalized, self.segmenter(normalized)
