"""The unsupervised loss of UBC: entropies of a corrected image and of its gradients, and what keeps the field in check.

A training uses it on many images, and test-time training on the one image to be corrected.

References
----------
Perez-Caballero et al. Unsupervised Deep Learning Method for MRI Bias Correction. MIDL short papers, 2024. Equation 2.
Ashburner. Another MRI bias correction approach. HBM, 2002 (entropy of log intensities).
"""

from __future__ import annotations

from typing import cast

import torch
from torch.nn import functional

__all__ = ["TERMS", "entropy", "foreground", "loss_terms", "soft_histogram", "total"]

BINS = 200
LOG_RANGE = (-2.5, 1.5)
LOG_GRADIENT_RANGE = (-4.0, 1.0)
FLOOR = 0.02
# |grad B| is per 1 / so many of the image's extent: the paper gives its weight, but no unit of length.
ROUGHNESS_LENGTH = 10
TERMS = {"entropy": 2.0, "gradient_entropy": 1.0, "roughness": 1.0, "spread": 1.0}


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
    # A value that is no number has no bin; it makes the whole histogram no numbers all the same.
    index = position.detach().nan_to_num().floor().clamp(max=bins - 2).long()
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
    """Where the loss is taken: voxels brighter than the image's mean. (B, 1, I, J, K) in; boolean, same shape, out."""
    return image > image.mean((2, 3, 4), keepdim=True)


def loss_terms(image: torch.Tensor, log_inverse: torch.Tensor) -> dict[str, torch.Tensor]:
    r"""The four terms of Equation 2, each of shape (B,), before their weights ``TERMS``; in float32.

    Parameters
    ----------
    image : tensor, shape (B, 1, I, J, K)
        Acquired image, of any scale; some voxels differ.
    log_inverse : tensor, same shape
        Log of the inverse bias field; its additive constant has no effect.

    Returns
    -------
    entropy : of log Y over the foreground, in nats; Y the corrected image with foreground mean 1
    gradient_entropy : of log(\|grad Y\| + 0.02), forward differences per voxel, over the foreground
    roughness : mean over the grid of the sum of \|dB\| along the three axes, per tenth of the image's extent
    spread : absolute difference of the standard deviations over the foreground before and after
    """
    with torch.autocast(image.device.type, enabled=False):
        masks = foreground(image)
        rows = [_terms(*one) for one in zip(image[:, 0].float(), log_inverse[:, 0].float(), masks[:, 0], strict=True)]
    return {name: torch.stack([row[name] for row in rows]) for name in TERMS}


def _terms(image: torch.Tensor, log_inverse: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """The terms of one image (I, J, K). Only the foreground is gathered: it is a fifth of the voxels."""
    inverse = log_inverse.exp()
    inside = mask.flatten().nonzero()[:, 0]
    before, factor = image.flatten()[inside], inverse.flatten()[inside]
    before_mean = before.mean()
    before = before / before_mean
    after = before * factor
    scale = after.mean()
    after = after / scale
    square = _squared_gradient(image, inverse, mask) / (before_mean * scale) ** 2
    log_after = after.clamp(min=FLOOR).log()
    log_gradient = ((square + 1e-8).sqrt() + FLOOR).log()  # 1e-8: the root has no slope at 0
    steps = [
        torch.diff(inverse, dim=axis).abs().mean() * ((n - 1) / ROUGHNESS_LENGTH) for axis, n in enumerate(image.shape)
    ]
    deviations = [((x - 1) ** 2).mean().sqrt() for x in (before, after)]
    return {
        "entropy": _entropy_of(log_after, LOG_RANGE),
        "gradient_entropy": _entropy_of(log_gradient, LOG_GRADIENT_RANGE),
        "roughness": sum(steps) / scale,
        "spread": (deviations[0] - deviations[1]).abs(),
    }


def _entropy_of(values: torch.Tensor, edges: tuple[float, float]) -> torch.Tensor:
    values = values[None]
    return entropy(soft_histogram(values, torch.ones_like(values), *edges))[0]


def _squared_gradient(image: torch.Tensor, inverse: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """|grad(image * inverse)|^2 at the voxels that are in the mask together with their three neighbours ahead."""
    both = mask[:-1, :-1, :-1].clone()
    for axis in range(3):
        both &= mask[tuple(slice(1, None) if a == axis else slice(None, -1) for a in range(3))]
    at = functional.pad(both, (0, 1) * 3).flatten().nonzero()[:, 0]
    corrected = (image * inverse).flatten()
    centre = corrected[at]
    strides = (image.shape[1] * image.shape[2], image.shape[2], 1)
    return cast(torch.Tensor, sum((corrected[at + stride] - centre) ** 2 for stride in strides))


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    """Weighted sum of the terms, averaged over the batch: the loss."""
    return cast(torch.Tensor, sum(weight * terms[name] for name, weight in TERMS.items())).mean()
