"""Networks that find tissue in a head of any contrast: where it is expected, and which voxels are purely of one.

``nn.Module`` classes and nothing else. Tensor axes are (B, C, I, J, K), in RAS+ order over the whole field of view.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["CLASSES", "MIXED", "PureVoxels", "TissueNetworks", "TissuePrior"]

#: Outside the brain, seven groups of tissue (:data:`biascorr_pydra.simulation.heads.GROUPS`), the rest of the brain.
CLASSES = 9
#: The further class of :class:`PureVoxels`: a voxel of the brain beside one of another class.
MIXED = CLASSES
BRIGHTEST = 5.0  # of the mean of the foreground
LOG_OFFSET = 0.05  # in log intensity, of the same unit


def _convolution(n: int, m: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(n, m, 3, padding=1, bias=False), nn.BatchNorm3d(m), nn.LeakyReLU(0.1, inplace=True))


def _scaled(image: torch.Tensor) -> torch.Tensor:
    """Images (B, I, J, K) divided by the mean of their voxels above half the mean of the bright ones."""
    flat = image.flatten(1)
    bright = flat > flat.mean(1, keepdim=True)
    level = 0.5 * (flat * bright).sum(1, keepdim=True) / bright.sum(1, keepdim=True).clamp(min=1)
    head = flat > level
    reference = (flat * head).sum(1) / head.sum(1).clamp(min=1)
    return image / reference.clamp(min=1e-6)[:, None, None, None]


def steps_to_neighbours(log_image: torch.Tensor) -> torch.Tensor:
    """Sum over the axes of the larger of the two differences from the neighbours: (..., I, J, K), same shape."""
    total = torch.zeros_like(log_image)
    for axis in (-3, -2, -1):
        step = torch.diff(log_image, dim=axis).abs()
        nothing = torch.zeros_like(log_image.narrow(axis, 0, 1))
        total = total + torch.maximum(torch.cat([step, nothing], axis), torch.cat([nothing, step], axis))
    return total


class TissuePrior(nn.Module):
    """A U-Net that tells where each class is to be expected, at half the resolution of the image.

    It sees of each 2 x 2 x 2 voxels the mean log intensity, the mean intensity, mean and least step between
    neighbouring voxels, and the standard deviation: the last three do not depend on which tissue is bright,
    and hardly on a bias field. What it gives depends on the place more than on the intensity; the contrast is found
    out afterwards, from the image itself (:mod:`biascorr_pydra.methods.deepem.pure_tissue`).

    Parameters
    ----------
    filters : four ints, from the finest to the coarsest level
    """

    def __init__(self, filters: tuple[int, int, int, int] = (16, 32, 64, 96)):
        super().__init__()
        a, b, c, d = filters
        both = lambda n, m, k: nn.Sequential(_convolution(n, m), _convolution(m, k))  # noqa: E731
        self.down1, self.down2, self.down3 = both(5, a, a), both(a, b, b), both(b, c, c)
        self.bottom = nn.Sequential(_convolution(c, d), _convolution(d, d), _convolution(d, c))
        self.up3, self.up2, self.up1 = both(2 * c, c, b), both(2 * b, b, a), _convolution(2 * a, a)
        self.head = nn.Conv3d(a, CLASSES, 1)

    @staticmethod
    def features(image: torch.Tensor) -> torch.Tensor:
        """What the network sees, (B, 5, I/2, J/2, K/2), of images (B, I, J, K) of any scale."""
        image = _scaled(image)[:, None].clamp(0, BRIGHTEST)
        log_image = torch.log(image + LOG_OFFSET)
        steps = steps_to_neighbours(log_image)
        mean = functional.avg_pool3d(log_image, 2)
        variance = functional.avg_pool3d(log_image**2, 2) - mean**2
        seen = [mean, functional.avg_pool3d(image, 2), functional.avg_pool3d(steps, 2)]
        return torch.cat([*seen, -functional.max_pool3d(-steps, 2), variance.clamp(min=0).sqrt()], 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, 9, I/2, J/2, K/2) of the classes; the sizes of ``features`` are multiples of 8."""
        one = self.down1(features)
        two = self.down2(functional.max_pool3d(one, 2))
        three = self.down3(functional.max_pool3d(two, 2))
        x = self.bottom(functional.max_pool3d(three, 2))
        for layer, beside in ((self.up3, three), (self.up2, two), (self.up1, one)):
            x = layer(torch.cat([functional.interpolate(x, scale_factor=2, mode="nearest"), beside], 1))
        return self.head(x)


class PureVoxels(nn.Module):
    """Tells of each voxel whether it is purely of one class, by what its surroundings look like.

    It sees prior and posterior probabilities of the classes, which say nothing of the contrast, the log intensity and
    its steps (:func:`biascorr_pydra.methods.deepem.pure_tissue.seen`): 20 channels. It looks some 8 voxels far.
    """

    def __init__(self, filters: tuple[int, int] = (16, 32)):
        super().__init__()
        a, b = filters
        self.fine = nn.Sequential(_convolution(2 * CLASSES + 2, a), _convolution(a, a))
        self.coarse = nn.Sequential(_convolution(a, b), _convolution(b, b))
        self.narrow = nn.Conv3d(b, a, 1)
        self.merge = nn.Sequential(_convolution(2 * a, a), _convolution(a, a))
        self.head = nn.Conv3d(a, CLASSES + 1, 1)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Logits (B, 10, I, J, K): outside, purely of class 1 to 8, mixed. The sizes are even."""
        fine = self.fine(seen)
        coarse = self.narrow(self.coarse(functional.max_pool3d(fine, 2)))
        wide = functional.interpolate(coarse, scale_factor=2, mode="nearest")
        return self.head(self.merge(torch.cat([wide, fine], 1)))


class TissueNetworks(nn.Module):
    """Both networks, so that one file holds their weights."""

    def __init__(self):
        super().__init__()
        self.prior, self.pure = TissuePrior(), PureVoxels()

    def folded(self) -> TissueNetworks:
        """A copy for use alone: in evaluation mode, each batch normalization taken into the convolution before it."""
        networks = copy.deepcopy(self).eval()
        for module in networks.modules():
            if isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[1], nn.BatchNorm3d):
                module[0], module[1] = fuse_conv_bn_eval(cast(nn.Conv3d, module[0]), module[1]), nn.Identity()
        return networks
