"""From an image and where tissue is expected to voxels that are purely of one tissue, whatever the contrast.

Of each class the joint histogram of log intensity and its mean over 27 voxels is collected with the prior
probabilities as weights, and gives posterior ones, as in expectation maximization with a free form of density: so the
contrast comes from the image itself.

References
----------
Ashburner, Friston. Unified segmentation. NeuroImage 26(3), 2005. doi:10.1016/j.neuroimage.2005.02.018
"""

from __future__ import annotations

import torch
from torch.nn import functional

from .networks import MIXED, PureVoxels, TissuePrior, steps_to_neighbours

__all__ = ["SIZE", "box_of", "expected", "log_intensity", "posterior", "pure_probability", "seen"]

#: Samples per axis of the grid on which all of this happens.
SIZE = 96
BINS, BIN_SD, ROUNDS = 40, 1.0, 8
EVERY = 3  # a third of the voxels fill the histograms
PERCENTILES = (0.002, 0.998)
SURELY_OUTSIDE = 0.995
DARKEST, BRIGHTEST = 0.03, 8.0  # relative to the brain's median
LEAST = 1e-3
MARGIN = 8  # voxels, about as far as the network looks


def expected(network: TissuePrior, images: torch.Tensor, around) -> torch.Tensor:
    """Prior probabilities of the classes (B, 9, I, J, K) of images (B, I, J, K) of any scale.

    ``around()`` is a context, such as autocast, for the network alone.
    """
    features = TissuePrior.features(images).contiguous(memory_format=torch.channels_last_3d)
    with around():
        logits = network(features)
    probability = logits.float().softmax(1)
    return functional.interpolate(probability, scale_factor=2, mode="trilinear", align_corners=False)


def log_intensity(image: torch.Tensor, brain: torch.Tensor, log_bias: torch.Tensor) -> torch.Tensor:
    """Log of an image (I, J, K) without its bias field, in units of its median in the brain; limited to both sides."""
    log_bias = log_bias - log_bias[brain].mean()
    reference = image[brain].median().clamp(min=1e-4)
    return torch.log((image / reference * torch.exp(-log_bias)).clamp(0, BRIGHTEST) + DARKEST)


def posterior(log_image: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """Probabilities of the classes (9, I, J, K) after looking at the intensities.

    Parameters
    ----------
    log_image : float tensor, shape (I, J, K)
    prior : float tensor, shape (9, I, J, K)
        Where its first class, outside, is sure, it stays so.
    """
    around = functional.avg_pool3d(functional.pad(log_image[None, None], (1,) * 6, mode="replicate"), 3, 1)[0, 0]
    inside = prior[0] < SURELY_OUTSIDE
    result = torch.zeros_like(prior)
    result[0] = 1
    if not inside.any():
        return result
    low, high = torch.quantile(log_image[inside][::7], torch.tensor(PERCENTILES, device=log_image.device))
    place = [
        ((x[inside] - low) / (high - low).clamp(min=1e-6) * (BINS - 1)).clamp(0, BINS - 1) for x in (log_image, around)
    ]
    cell = place[0].round().long() * BINS + place[1].round().long()
    weights = prior[:, inside]
    some, cells = weights[:, ::EVERY].contiguous(), cell[::EVERY].contiguous()
    probability = some
    for step in range(ROUNDS):
        density = torch.stack([torch.bincount(cells, of_class, minlength=BINS**2) for of_class in probability])
        density = _smooth(density.view(len(prior), 1, BINS, BINS)).flatten(1)
        density = density / (density.sum(1, keepdim=True) + 1e-6) + 1e-6
        if step == ROUNDS - 1:
            some, cells = weights, cell
        probability = some * density[:, cells]
        probability = probability / probability.sum(0, keepdim=True)
    result[:, inside] = probability
    return result


def _smooth(histograms: torch.Tensor) -> torch.Tensor:
    kernel = torch.exp(-0.5 * (torch.arange(-3, 4, device=histograms.device) / BIN_SD) ** 2)
    kernel = kernel / kernel.sum()
    return functional.conv2d(histograms, (kernel[:, None] * kernel)[None, None], padding=3)


def seen(prior: torch.Tensor, after: torch.Tensor, log_image: torch.Tensor) -> torch.Tensor:
    """What :class:`~biascorr_pydra.methods.deepem.networks.PureVoxels` sees of one image: (20, I, J, K)."""
    result = torch.empty((2 * len(prior) + 2, *log_image.shape), device=log_image.device)
    result[: len(prior)], result[len(prior) : -2] = prior, after
    result[:-2].clamp_(min=LEAST).log_().div_(3).add_(1)
    result[-2], result[-1] = log_image, steps_to_neighbours(log_image)
    return result


def pure_probability(
    network: PureVoxels,
    image: torch.Tensor,
    prior: torch.Tensor,
    brain: torch.Tensor,
    log_bias: torch.Tensor,
    around,
    threads,
) -> torch.Tensor:
    """Probabilities (10, I, J, K) that a voxel of an image is outside, purely of one class, or mixed.

    The network looks at the brain and ``MARGIN`` voxels around it; beyond, all is outside. ``around()`` is a context
    for the network, ``threads()`` one for all that comes out the same on many threads.
    """
    box = tuple(_even(part, n) for part, n in zip(box_of(brain, MARGIN), brain.shape, strict=True))
    log_image = log_intensity(image[box], brain[box], log_bias[box])
    in_box = (slice(None), *box)
    with threads():
        looked_at = seen(prior[in_box], posterior(log_image, prior[in_box]), log_image)
        with around():
            logits = network(looked_at[None].contiguous(memory_format=torch.channels_last_3d))
        result = torch.zeros((MIXED + 1, *image.shape), device=image.device)
        result[0] = 1
        result[in_box] = logits[0].float().softmax(0)
    return result


def _even(part: slice, n: int) -> slice:
    """A slice of even length, for ``n`` that is even."""
    return slice(part.start - part.start % 2, part.stop + part.stop % 2)


def box_of(mask: torch.Tensor, margin: int = 0) -> tuple[slice, ...]:
    """The smallest box around what is true in a volume, and a margin where the volume has it."""
    slices = []
    for axis, n in enumerate(mask.shape):
        others = [k for k in range(3) if k != axis]
        places = torch.nonzero(mask.any(others[1]).any(others[0])).flatten()
        slices.append(slice(max(int(places[0]) - margin, 0), min(int(places[-1]) + margin + 1, n)))
    return tuple(slices)
