"""The division: corrected = acquired / bias, of an image or of every frame of a series. Nobody else divides."""

from __future__ import annotations

import numpy as np

__all__ = ["divide"]


def divide(data: np.ndarray, bias: np.ndarray, *, keep_nonfinite: bool = False) -> np.ndarray:
    """Divide acquired intensities by a bias field.

    Parameters
    ----------
    data : float32 array (I, J, K), or (I, J, K, ...) for a series, each frame of which is divided by the one field
    bias : float32 array (I, J, K), dimensionless, positive and finite everywhere
    keep_nonfinite : bool
        Leave voxels that were NaN or infinite as they were acquired. By default they are 0: a correction promises an
        image that can be computed with, whereas ``biascorr apply`` changes nothing but the field.

    Returns
    -------
    float32 array of the shape of ``data``
    """
    corrected = data / bias.reshape(bias.shape + (1,) * (data.ndim - bias.ndim))
    if not keep_nonfinite:
        corrected[~np.isfinite(data)] = 0
    return corrected
