"""The brain by the network of the Python package deepbet; see the module `brain`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from biascorr_pydra.errors import InvalidParameterError, SegmentationError
from biascorr_pydra.resources import DEVICES

if TYPE_CHECKING:
    from deepbet.bet import BrainExtraction

__all__ = ["find_brain"]


@lru_cache(maxsize=2)
def _model(no_gpu: bool) -> BrainExtraction:
    from deepbet.bet import BrainExtraction

    return BrainExtraction(no_gpu=no_gpu)


def find_brain(data: np.ndarray, device: str = "auto", *, name: str | None = None) -> np.ndarray:
    """Brain mask of an array in RAS+ order; deepbet works on voxels alone.

    Parameters
    ----------
    data : array (I, J, K), finite
    device : {'auto', 'cpu', 'cuda'}
    name : str, optional
        The image's, for messages.

    Returns
    -------
    mask : boolean array (I, J, K)

    Raises
    ------
    InvalidParameterError
        A device that is not there.
    SegmentationError
        deepbet's first network sees no brain.
    """
    import torch

    if device not in DEVICES or (device == "cuda" and not torch.cuda.is_available()):
        raise InvalidParameterError(
            "no such device is available", file=name, value=repr(device), next_step="Choose device 'cpu' or 'auto'."
        )
    model = _model(device == "cpu")
    try:
        mask = model.postprocess(model.run_model(data.astype(np.float32)) > 0.5)
    except (AssertionError, ValueError) as error:  # what deepbet raises where its first network sees no brain
        raise SegmentationError(
            "brain extraction by 'deepbet' found no brain",
            file=name,
            value=str(error),
            next_step="It is made for T1w images of heads: try method 'template', or give a mask.",
        ) from error
    return np.asarray(mask, bool)
