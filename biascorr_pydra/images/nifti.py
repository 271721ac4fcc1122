"""Read, check and write NIfTI images.

Header policy: what is written carries the input's affine, qform and sform with their codes, units and description;
the data type is float32 unless said otherwise. Nothing that exists is overwritten without being asked to, and a file
is complete or absent: it is written under a temporary name in the same folder and renamed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.processing import resample_from_to

from biascorr_pydra.errors import GridMismatchError, InvalidImageError, InvalidMaskError, UnreadableImageError

from .files import SUFFIXES, write_bytes

__all__ = [
    "Intensities",
    "check_real",
    "encode",
    "inspect",
    "load",
    "load_mask",
    "same_grid",
    "save",
    "save_like",
    "voxel_size_mm",
]

GRID_TOLERANCE_VOXELS = 1e-2
MASK_KEPT = 0.99
MIN_VOXEL_MM3 = 1e-9


# --- reading


def load(file: str | Path) -> nib.Nifti1Image:
    """Read a NIfTI-1 or NIfTI-2 image (.nii or .nii.gz) completely into memory.

    Raises
    ------
    UnreadableImageError
        The file is missing, is not NIfTI, or ends too early.
    """
    path = Path(file)
    if not path.is_file():
        raise UnreadableImageError("no such file", file=path, next_step="Check the path.")
    if not path.name.endswith(SUFFIXES):
        raise UnreadableImageError(
            "images are read from .nii or .nii.gz files",
            file=path,
            next_step="Convert it first, for instance with `nib-convert IN OUT.nii.gz`.",
        )
    content = path.read_bytes()
    if path.name.endswith(".gz"):
        content = _gunzip(content, path)
    return _parse(content, path)


def _gunzip(content: bytes, path: Path) -> bytes:
    try:
        return igzip.decompress(content)
    except (EOFError, OSError, isal_zlib.error) as error:  # type: ignore[misc]  # its stub has the class as an instance
        raise UnreadableImageError(
            "not a complete gzip file",
            file=path,
            value=f"{len(content)} bytes ({error})",
            next_step="Copy or download it again.",
        ) from error


def _parse(content: bytes, path: Path) -> nib.Nifti1Image:
    kind = nib.Nifti2Image if content[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image
    try:
        img = kind.from_bytes(content)
        proxy: Any = img.dataobj  # nibabel declares it as any array; from bytes it is an ArrayProxy
        offset, size = proxy.offset, np.prod(img.shape, dtype=np.int64) * img.get_data_dtype().itemsize
    except Exception as error:  # nibabel has no common base for what a damaged header can raise
        raise UnreadableImageError(
            "not a NIfTI image", file=path, value=str(error), next_step="Check how the file was made."
        ) from error
    if not np.isfinite(img.affine).all() or abs(np.linalg.det(img.affine[:3, :3])) < MIN_VOXEL_MM3:
        raise UnreadableImageError(
            "the header gives no usable position in space (its affine is singular)",
            file=path,
            value=img.affine[:3].tolist(),
            next_step="Repair qform or sform, or convert the image again.",
        )
    if len(content) < offset + size:
        raise UnreadableImageError(
            "the image data end too early",
            file=path,
            value=f"{len(content) - offset} of {size} bytes",
            next_step="Copy or download it again.",
        )
    img.set_filename(str(path))
    return img


# --- checking


@dataclass(frozen=True)
class Intensities:
    """What was found in an image's voxels; counts of voxels."""

    n_voxels: int
    n_nan: int
    n_infinite: int
    n_negative: int
    n_zero: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def warnings(self) -> list[str]:
        """What a user should know, as sentences."""
        sentences = []
        if self.n_nan or self.n_infinite:
            sentences.append(
                f"{self.n_nan} NaN and {self.n_infinite} infinite voxels were left out and written as 0 in the output."
            )
        if self.n_negative:
            sentences.append(f"{self.n_negative} negative voxels: the field is estimated without them, they are kept.")
        return sentences


def inspect(img: nib.spatialimages.SpatialImage, *, name: str | Path | None = None):
    """Check that an image can be corrected, and return its values.

    Parameters
    ----------
    img : image with 3 axes (further axes of length 1 are dropped)
    name : file name for messages; the image's own by default

    Returns
    -------
    data : float32 array (I, J, K), non-finite voxels set to 0
    valid : boolean array (I, J, K), where the acquired value was finite
    intensities : Intensities

    Raises
    ------
    InvalidImageError
        Fewer or more than three dimensions, fewer than 4 voxels on an axis, complex or RGB values, no finite voxel, no
        positive voxel, or all voxels equal.
    """
    name = name or img.get_filename() or "image"
    shape = img.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        advice = (
            "Add --method n4 --average-frames for one field for all frames, or correct one and use `biascorr apply`."
            if len(shape) > 3
            else "A bias field is estimated from volumes; stack the slices into one."
        )
        raise InvalidImageError("a 3-D image is needed", file=name, value=f"shape {img.shape}", next_step=advice)
    if min(shape) < 4:
        raise InvalidImageError(
            "at least 4 voxels are needed on every axis",
            file=name,
            value=f"shape {shape}",
            next_step="Check that this is a whole volume and not a slab, a slice or a localiser.",
        )
    check_real(img, name)
    data = np.asarray(img.dataobj, dtype=np.float32).reshape(shape)
    n_nan, n_infinite = int(np.isnan(data).sum()), int(np.isinf(data).sum())
    valid = np.isfinite(data) if n_nan or n_infinite else np.ones(shape, bool)
    if n_nan or n_infinite:
        data = np.where(valid, data, np.float32(0))
    intensities = Intensities(
        data.size, n_nan, n_infinite, int((data < 0).sum()), int((data == 0).sum()) - n_nan - n_infinite
    )
    _check_values(data, valid, name)
    return data, valid, intensities


def check_real(img: nib.spatialimages.SpatialImage, name: str | Path | None = None) -> None:
    """Raise InvalidImageError for complex or RGB values."""
    dtype = img.get_data_dtype()
    if dtype.kind not in "iufb":
        raise InvalidImageError(
            "real numbers are needed",
            file=name or img.get_filename() or "image",
            value=f"data type {dtype}",
            next_step="Use the magnitude image.",
        )


def _check_values(data, valid, name) -> None:
    advice = "Check how the image was exported."
    if not valid.any():
        raise InvalidImageError("no voxel has a finite value", file=name, value="all NaN or infinite", next_step=advice)
    inside = data[valid]
    low, high = float(inside.min()), float(inside.max())
    if low == high:
        raise InvalidImageError(
            "all voxels have the same value", file=name, value=f"{low:g} everywhere", next_step=advice
        )
    if high <= 0:
        raise InvalidImageError(
            "no voxel is positive, and a multiplicative field needs positive intensities",
            file=name,
            value=f"maximum {high:g}",
            next_step=advice,
        )


def voxel_size_mm(img: nib.spatialimages.SpatialImage) -> tuple[float, float, float]:
    """Voxel edge lengths in mm from the affine (so that qform and sform users get the same answer as nibabel)."""
    size_i, size_j, size_k = (float(size) for size in nib.affines.voxel_sizes(img.affine)[:3])
    return size_i, size_j, size_k


def same_grid(a, b, tolerance: float = GRID_TOLERANCE_VOXELS) -> bool:
    """Whether two images have the same shape and, to ``tolerance`` voxels at every corner, the same position.

    Affines that went through different programs differ in the last digits, so equality is too strict a test.
    """
    if a.shape[:3] != b.shape[:3]:
        return False
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in a.shape[:3]])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    try:
        moved = np.linalg.inv(a.affine) @ b.affine @ corners
    except np.linalg.LinAlgError:
        return False
    return bool(np.abs(moved - corners)[:3].max() <= tolerance)


def load_mask(file: str | Path | nib.spatialimages.SpatialImage, img) -> tuple[np.ndarray, bool]:
    """Read a mask and bring it onto the grid of ``img``.

    A mask on another grid over the same place is resampled (nearest neighbour, in scanner space) provided that at
    least 99% of its volume falls inside the image.

    Returns
    -------
    mask : boolean array (I, J, K)
    resampled : bool

    Raises
    ------
    InvalidMaskError
        The mask has no voxel above 0, or is not 3-D.
    GridMismatchError
        The mask lies elsewhere.
    """
    mask_img = file if isinstance(file, nib.spatialimages.SpatialImage) else load(file)
    name = mask_img.get_filename() or "mask"
    check_real(mask_img, name)
    array = np.nan_to_num(np.asarray(mask_img.dataobj, np.float32)) > 0
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise InvalidMaskError("a 3-D mask is needed", file=name, value=f"shape {mask_img.shape}")
    if not array.any():
        raise InvalidMaskError(
            "the mask is empty", file=name, value="no voxel above 0", next_step="Check the brain extraction."
        )
    if same_grid(mask_img, img):
        return array, False
    moved = resample_from_to(
        nib.Nifti1Image(array.astype(np.uint8), mask_img.affine), (img.shape[:3], img.affine), order=0
    )
    moved = np.asarray(moved.dataobj) > 0
    kept = moved.sum() * abs(np.linalg.det(img.affine[:3, :3]))
    kept /= array.sum() * abs(np.linalg.det(mask_img.affine[:3, :3]))
    if not moved.any() or kept < MASK_KEPT:
        raise GridMismatchError(
            f"the mask does not lie inside the image {img.get_filename() or ''}".rstrip(),
            file=name,
            value=f"shapes {array.shape} and {img.shape[:3]}, {kept:.0%} of the mask's volume inside the image",
            next_step="Give a mask drawn on this image, or resample it to the image first.",
        )
    return moved, True


# --- writing


def save_like(data: np.ndarray, like: nib.Nifti1Image, *, dtype=np.float32) -> nib.Nifti1Image:
    """An image with the header of ``like`` (affine, forms, codes, units, description) and new values."""
    header = like.header.copy()
    header.set_data_dtype(dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # display range of the old values
    img = type(like)(np.asarray(data, dtype), like.affine, header)
    # The affine is the header's own, so that nibabel leaves qform, sform and their codes as they were.
    return img


def save(img: nib.Nifti1Image, file: str | Path) -> None:
    """Write an image, whole or not at all; equal images give equal bytes."""
    write_bytes(file, encode(img, file))


def encode(img: nib.Nifti1Image, file: str | Path) -> bytes:
    """An image's bytes as they belong into a file of this name."""
    content = img.to_bytes()
    return igzip.compress(content, 3, mtime=0) if str(file).endswith(".gz") else content
