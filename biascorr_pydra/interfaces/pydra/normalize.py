"""The Pydra task of DeepNormalize's normalized image, which is no corrected one."""

from pathlib import Path
from typing import cast

from fileformats.application import Json
from fileformats.generic import File
from fileformats.medimage import NiftiGz
from pydra.compose import python

from biascorr_pydra import __version__
from biascorr_pydra.resources import requires

from . import needs
from .tasks import path_of

__all__ = ["NormalizeImage"]


@requires(needs.for_normalization)
@python.define(outputs=["normalized_file", "dseg_file", "record_file"])
def NormalizeImage(  # noqa: N802
    in_file: File,
    mask_file: File | None = None,
    speed: str = "paper",
    weights_file: File | None = None,
    device: str = "auto",
    implementation: str = __version__,
) -> tuple[NiftiGz, NiftiGz, Json]:
    """Normalize one T1w image by DeepNormalize, and segment its tissues.

    Parameters
    ----------
    in_file : File
        the image, 3-D
    mask_file : File
        brain mask; without it, the image is taken as stripped
    speed : str
        paper (patches every 8 mm) or fast (every 16 mm)
    weights_file : File
        weights of your own, .safetensors, with the card beside them
    device : str
        auto, cpu or cuda
    implementation : str
        version of the code, part of the cache key

    Returns
    -------
    normalized_file : NiftiGz
        intensities from 0 to 1, contrast changed by design
    dseg_file : NiftiGz
        1 GM, 2 WM, 3 CSF
    record_file : Json
        what was done and found
    """
    from biascorr_pydra.normalize import normalize_file

    normalized_file, dseg_file, record_file = (
        Path(name).absolute() for name in ("normalized.nii.gz", "dseg.nii.gz", "normalization.json")
    )
    normalize_file(
        path_of(in_file),
        normalized_file,
        mask_file=path_of(mask_file),
        dseg_file=dseg_file,
        record_file=record_file,
        speed=speed,
        weights_file=path_of(weights_file),
        device=device,
        overwrite=True,
    )
    return cast(tuple[NiftiGz, NiftiGz, Json], (normalized_file, dseg_file, record_file))
