"""One image to be corrected: its values, mask, weight and method, looked at and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from biascorr_pydra.bids.signs import Signs, signs_of_correction
from biascorr_pydra.errors import GridMismatchError, InvalidImageError, InvalidMaskError, InvalidParameterError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.methods.corrector import Corrector, Scan
from biascorr_pydra.resources import resolve_device

from .options import CorrectionOptions
from .series import frames_of, mean_frame

__all__ = ["Case", "ImageOrFile", "make_case"]

ImageOrFile = nib.spatialimages.SpatialImage | str | Path


@dataclass(frozen=True)
class Case:
    """An image, what is known of it before its field is estimated, and what is to estimate it.

    Attributes
    ----------
    img : as it came; its grid and header are those of every output
    corrector : the method asked for
    fallback : the method whose field may take its place, or None
    device : "cpu" or "cuda"
    scan : what the corrector is given, on the image's grid; of a series the mean of its frames
    frames : float32 array (I, J, K, frames) of a series, else None
    scale_mask : boolean array (I, J, K)
        Where the field has mean 1: the given mask, or the detected head, without voxels that are not finite.
    mask_resampled : whether the mask came on another grid
    intensities : counts of odd voxels
    signs : of an earlier correction
    warnings : sentences on all this
    mask_file, weight_file : where mask and weight came from, None if from memory or not given
    """

    img: nib.Nifti1Image
    corrector: Corrector
    fallback: Corrector | None
    device: str
    scan: Scan
    frames: np.ndarray | None
    scale_mask: np.ndarray
    mask_resampled: bool
    intensities: nifti.Intensities
    signs: Signs
    warnings: tuple[str, ...]
    mask_file: str | None
    weight_file: str | None

    @property
    def name(self) -> str:
        """Of the image, for messages."""
        return str(self.img.get_filename() or "image")

    @property
    def acquired(self) -> np.ndarray:
        """What is to be divided by the field: (I, J, K), finite, or all frames of a series."""
        return self.scan.data if self.frames is None else self.frames


def make_case(
    img: nib.Nifti1Image,
    options: CorrectionOptions,
    *,
    mask: ImageOrFile | None = None,
    weight: ImageOrFile | None = None,
) -> Case:
    """Look at an image, its mask and its weight, and make sure that it can be corrected as asked.

    Raises
    ------
    BiasCorrError
        An image, mask or weight that cannot be used, an unknown method, or one that does not take what it is given.
    """
    device = resolve_device(options.device)
    corrector, fallback = options.corrector(), options.fallback_corrector()
    if fallback == corrector:
        fallback = None  # it is the one rejected
    frames = frames_of(img) if options.average_frames else None
    if frames is not None:
        _check_series(frames, corrector, fallback)
    data, valid, intensities = nifti.inspect(img if frames is None else mean_frame(frames, img))
    mask_array, resampled = (None, False) if mask is None else nifti.load_mask(mask, img)
    scan = Scan(data, valid, mask_array, nifti.voxel_size_mm(img), _load_weight(weight, img, corrector))
    warnings = intensities.warnings()
    if resampled:
        warnings.append("The mask was on another grid and was resampled to the image's (nearest neighbour).")
    scale_mask = (detect_head(data) if mask_array is None else mask_array) & valid
    if not scale_mask.any():
        raise InvalidImageError("the mask holds no voxel with a finite value", file=img.get_filename() or "image")
    signs = signs_of_correction(options.metadata or {})
    return Case(
        img=img,
        corrector=corrector,
        fallback=fallback,
        device=device,
        scan=scan,
        frames=frames,
        scale_mask=scale_mask,
        mask_resampled=resampled,
        intensities=intensities,
        signs=signs,
        warnings=(*warnings, *signs.intensity),
        mask_file=_file(mask),
        weight_file=_file(weight),
    )


def _file(source: ImageOrFile | None) -> str | None:
    return str(source) if isinstance(source, str | Path) else None


def _check_series(frames: np.ndarray, corrector: Corrector, fallback: Corrector | None) -> None:
    untried = [method for method in (corrector, fallback) if method and not method.takes_series]
    if untried:
        raise InvalidParameterError(
            f"method {untried[0].name!r} has not been tried on the mean of a series",
            value=f"average_frames, {frames.shape[3]} frames",
            next_step="Use method n4 for series.",
        )


def _load_weight(weight: ImageOrFile | None, img: nib.Nifti1Image, corrector: Corrector) -> np.ndarray | None:
    """The weight image's values, if there is one, on the image's grid."""
    if weight is None:
        return None
    if not corrector.uses_weight:
        raise InvalidParameterError(
            f"method {corrector.name!r} takes no weight image", next_step="Leave it out, or use n4 or ants-n4."
        )
    weight_img = nifti.load(weight) if isinstance(weight, str | Path) else weight
    name = weight_img.get_filename() or "weight image"
    if not nifti.same_grid(weight_img, img):
        raise GridMismatchError(
            "a weight image must be on the image's grid",
            file=name,
            value=f"shapes {weight_img.shape} and {img.shape}",
            next_step="Resample it to the image.",
        )
    values = np.asarray(weight_img.dataobj, np.float32).reshape(img.shape[:3])
    if not (values > 0).any():
        raise InvalidMaskError("the weight image is empty", file=name, value="no voxel above 0")
    return values
