"""Random gain fields for implicit training, in two dimensions: of the paper of 2019, and of 2022.

All randomness comes from a :class:`torch.Generator`. A field is made on a coarse grid and brought to any number of
samples by a matrix on either side, so that the same field is known at several resolutions.

References
----------
Simko et al. Intensity normalization of MRI (GetNet). arXiv:1909.05484, 2019.
Simko et al. MRI bias field correction with an implicitly trained CNN. MIDL, 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from biascorr_pydra.images.field import DEGREE, bspline_basis

__all__ = ["random_field_gain", "spline_gain"]

MOST_SPANS = 3
LARGEST_2019 = 0.3
RANGE_2022 = (0.10, 0.50)


def spline_gain(
    batch: int, sizes: Sequence[int], generator: torch.Generator, *, largest: float = LARGEST_2019
) -> list[torch.Tensor]:
    """Gain fields of at most 30% inhomogeneity: random cubic B-splines of 1 to 3 spans per axis.

    Parameters
    ----------
    batch : fields
    sizes : samples per axis at which to give them; samples stand for cells of equal size that fill the slice
    largest : each field reaches from 1 - a to 1 + a, a uniform between a tenth of this and all of it

    Returns
    -------
    One float tensor for each size, (batch, 1, size, size).
    """
    points = torch.randn(batch, MOST_SPANS + DEGREE, MOST_SPANS + DEGREE, generator=generator)
    spans = torch.randint(1, MOST_SPANS + 1, (batch, 2), generator=generator)
    amplitude = largest * (0.1 + 0.9 * torch.rand(batch, 1, 1, generator=generator))
    fields = []
    for size in sizes:
        bases = torch.stack([_spline_basis(size, n) for n in range(1, MOST_SPANS + 1)])
        fields.append(bases[spans[:, 0] - 1] @ points @ bases[spans[:, 1] - 1].mT)
    return _between(fields, amplitude)


def random_field_gain(
    batch: int, sizes: Sequence[int], generator: torch.Generator, *, inhomogeneity: tuple[float, float] = RANGE_2022
) -> list[torch.Tensor]:
    """Gain fields from a Gaussian random field on a grid of a tenth of the slice's 256 samples, up-sampled by DCT.

    The field's correlation length is (256 / 10) / U(0.5, 2) samples of that grid. Each field reaches from 1 - r/2 to
    1 + r/2, r uniform in ``inhomogeneity``. Parameters and result otherwise as :func:`spline_gain`.
    """
    n = 26
    length = 25.6 / (0.5 + 1.5 * torch.rand(batch, 1, 1, generator=generator))
    white = torch.randn(batch, n, n, generator=generator)
    half = (inhomogeneity[0] + (inhomogeneity[1] - inhomogeneity[0]) * torch.rand(batch, 1, 1, generator=generator)) / 2
    distance = (torch.arange(n)[:, None] - torch.arange(n)[None]).float()
    # Smoothing white noise with a Gaussian of standard deviation s gives a Gaussian covariance of length s sqrt(2).
    kernel = torch.exp(-((distance / length) ** 2))
    coarse = kernel @ white @ kernel.mT
    return _between([_upsampling(n, size) @ coarse @ _upsampling(n, size).mT for size in sizes], half)


def _between(fields: list[torch.Tensor], amplitude: torch.Tensor) -> list[torch.Tensor]:
    """Map to 1 - amplitude .. 1 + amplitude by the extremes at the finest resolution given."""
    finest = max(fields, key=lambda field: field.shape[-1])
    low, high = finest.amin((1, 2), keepdim=True), finest.amax((1, 2), keepdim=True)
    scale = 2 * amplitude / (high - low).clamp(min=1e-12)
    return [(1 + (field - (low + high) / 2) * scale)[:, None] for field in fields]


@lru_cache
def _spline_basis(size: int, spans: int) -> torch.Tensor:
    basis = bspline_basis(np.arange(size), spans + DEGREE, first=-0.5, last=size - 0.5)
    padded = np.pad(basis, ((0, 0), (0, MOST_SPANS - spans)))
    return torch.as_tensor(padded, dtype=torch.float32)


@lru_cache
def _upsampling(n: int, size: int) -> torch.Tensor:
    """(size, n): discrete cosine transform of n samples, its inverse at ``size`` samples over the same extent."""
    order = np.arange(n)
    forward = np.cos(math.pi * order[:, None] * (order[None] + 0.5) / n) * np.where(order == 0, 1, 2)[:, None] / n
    inverse = np.cos(math.pi * (np.arange(size)[:, None] + 0.5) / size * order[None])
    return torch.as_tensor(inverse @ forward, dtype=torch.float32)
