"""4-D series: their frames, and the mean of them, which one field for all is estimated on."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from biascorr_pydra.images import nifti

__all__ = ["average_file", "frames_of", "mean_frame"]


def frames_of(img: nib.Nifti1Image) -> np.ndarray | None:
    """A series' values, float32 (I, J, K, frames), or None for an image that has one frame."""
    if len(img.shape) != 4 or img.shape[3] == 1:
        return None
    nifti.check_real(img)
    return np.asarray(img.dataobj, np.float32)


def mean_frame(frames: np.ndarray, img: nib.Nifti1Image) -> nib.Nifti1Image:
    """The mean of a series' frames as an image with the series' header and name."""
    mean = nifti.save_like(frames.mean(axis=3), img)
    mean.set_filename(img.get_filename() or "series")
    return mean


def average_file(in_file: str | Path, out_file: str | Path) -> Path:
    """Write the mean of a series' frames, float32; an image that has one frame keeps its values.

    Raises
    ------
    BiasCorrError
        The image cannot be read, has values that are not real, or the output cannot be written.
    """
    img = nifti.load(in_file)
    frames = frames_of(img)
    nifti.check_real(img)
    mean = nifti.save_like(np.asarray(img.dataobj, np.float32), img) if frames is None else mean_frame(frames, img)
    nifti.save(mean, out_file)
    return Path(out_file)
