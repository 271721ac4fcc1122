"""Divide an image by a bias field that was found before."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from biascorr_pydra.errors import GridMismatchError, InvalidImageError
from biascorr_pydra.images import files, nifti

from .divide import divide

__all__ = ["apply_file"]


def apply_file(bias_file: str | Path, in_file: str | Path, out_file: str | Path, *, overwrite: bool = False) -> None:
    """Divide an image, or every volume of a 4-D series, by a bias field on the same grid.

    Parameters
    ----------
    bias_file : 3-D, positive and finite everywhere
    in_file : 3-D or more; the first three axes are the field's
    out_file : float32, header of ``in_file``

    Raises
    ------
    GridMismatchError
        The first three axes differ in size or position.
    InvalidImageError
        The field has values that cannot be divided by.
    """
    files.check_output(out_file, inputs=(bias_file, in_file), overwrite=overwrite)
    bias_img, img = nifti.load(bias_file), nifti.load(in_file)
    nifti.check_real(bias_img)
    nifti.check_real(img)
    if any(n > 1 for n in bias_img.shape[3:]):
        raise InvalidImageError(
            "a bias field has three axes",
            file=bias_file,
            value=f"shape {bias_img.shape}",
            next_step="The field comes first: `biascorr apply BIAS IN OUT`.",
        )
    if len(img.shape) < 3 or not nifti.same_grid(bias_img, img):
        raise GridMismatchError(
            "the field and the image must be on the same grid",
            file=in_file,
            value=f"shape {img.shape}, field {bias_img.shape}",
            next_step=f"Use the image that the field was estimated on, or one on its grid ({bias_file}).",
        )
    bias = np.asarray(bias_img.dataobj, np.float32).reshape(bias_img.shape[:3])
    if not (np.isfinite(bias).all() and (bias > 0).all()):
        raise InvalidImageError(
            "a bias field is positive and finite",
            file=bias_file,
            value=f"minimum {bias.min():g}",
            next_step="Give a field written by `biascorr correct --bias-file`.",
        )
    data = np.asarray(img.dataobj, np.float32)
    nifti.save(nifti.save_like(divide(data, bias, keep_nonfinite=True), img), out_file)
