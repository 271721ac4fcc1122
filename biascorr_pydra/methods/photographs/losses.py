"""The losses of implicit training: no field of a photograph is known, only the one that is multiplied in.

References
----------
Simko et al. Intensity normalization of MRI (GetNet). arXiv:1909.05484, 2019. Equation 3.
Simko et al. MRI bias field correction with an implicitly trained CNN. MIDL, 2022.
"""

from __future__ import annotations

import torch

__all__ = ["centered", "economy", "idempotence", "implicit_mae", "implicit_mse"]


def _mean(values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Mean of each (1, I, J) over where ``inside`` is 1: (B, 1, 1, 1)."""
    return (values * inside).sum((1, 2, 3), keepdim=True) / inside.sum((1, 2, 3), keepdim=True).clamp(min=1e-6)


def centered(values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Each (1, I, J) less its mean over where ``inside`` is 1."""
    return values - _mean(values, inside)


def implicit_mae(
    gain: torch.Tensor, log_with: torch.Tensor, log_without: torch.Tensor, inside: torch.Tensor
) -> torch.Tensor:
    """2019: mean absolute difference of the known gain k and G(v k) / G(v).

    Parameters
    ----------
    gain : tensor (B, 1, I, J)
        The known gain field k.
    log_with, log_without : tensors, same shape
        Log of G(v k) and of G(v).
    inside : tensor, same shape
        How much each place counts.

    Returns
    -------
    tensor (B,)
    """
    return _mean((gain - (log_with - log_without).exp()).abs(), inside).flatten()


def implicit_mse(
    gain: torch.Tensor, log_with: torch.Tensor, log_without: torch.Tensor, inside: torch.Tensor
) -> torch.Tensor:
    """2022: mean square difference of k and G(v k) / G(v), each divided by its mean. As :func:`implicit_mae`."""
    ratio = (log_with - log_without).exp()
    difference = gain / _mean(gain, inside) - ratio / _mean(ratio, inside)
    return _mean(difference**2, inside).flatten()


def idempotence(log_again: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """2022: mean square difference from 1 of the field of an image already corrected, divided by its mean: (B,)."""
    field = log_again.exp()
    return _mean((field / _mean(field, inside) - 1) ** 2, inside).flatten()


def economy(log_field: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Mean absolute deviation of a log field from its mean, (B,): what is found where nothing was multiplied in.

    In neither paper. The implicit losses say how a field must change when k is multiplied in, and nothing of the field
    itself: the logarithm of the image, smoothed, minimizes them too.
    """
    return _mean(centered(log_field, inside).abs(), inside).flatten()
