"""A scan's images as its pictures need them, read method by method; whole volumes are not kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from biascorr_pydra.errors import GridMismatchError, InvalidImageError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.metrics import DSEG_LABELS

from .coarse import labels_on
from .geometry import PLANES, View, field_limits, intensity_limits

__all__ = ["Lines", "MethodImages", "ScanImages", "Slices"]

Slices = dict[str, list[np.ndarray]]
Lines = dict[str, list[list[np.ndarray]]]  # by plane and slice, arrays (N, 2) of columns and rows
#: A method's images by kind; the last is the field that was not divided out.
SHOWN = ("corrected", "bias", "rejected")


@dataclass(frozen=True)
class MethodImages:
    """Slices and brain values of one method's result; what its files do not give is None or absent.

    Attributes
    ----------
    acquired, corrected, bias, rejected : slices by plane, or None
    brain : by the same names, float arrays (N,) of the values in the mask
    """

    acquired: Slices | None
    corrected: Slices | None
    bias: Slices | None
    brain: dict[str, np.ndarray]
    rejected: Slices | None = None


@dataclass
class ScanImages:
    """The pictures' material of one scan.

    The first method that can be read decides slices, box, mask and intensity scale for all.

    Attributes
    ----------
    view : the slices
    limits : ends of the gray scale
    position_mm : of each slice, by array axis: its scanner coordinate at the center of the box
    masked : whether a brain mask was there; else the detected head stands for it
    outline, tissues : slices of the mask, and of the segmentation's labels or None
    labels : int8 array (N,), the segmentation's labels in the mask, or None
    of_judge : whether that segmentation is the judge's tissue
    affine : of the images (4, 4)
    methods : by name
    mask_outlines : contours of ``outline``, once a picture has needed them
    """

    view: View | None = None
    limits: tuple[float, float] | None = None
    position_mm: tuple[tuple[float, ...], ...] = ()
    masked: bool = True
    outline: Slices | None = None
    tissues: Slices | None = None
    labels: np.ndarray | None = None
    of_judge: bool = False
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    methods: dict[str, MethodImages] = field(default_factory=dict)
    mask_outlines: Lines | None = None
    _mask: np.ndarray | None = None
    _inside_mask: np.ndarray | None = None  # flat indices: taken three times as fast as by the mask itself

    def add(self, method: str, files: dict[str, Path]) -> None:
        """Read one method's images.

        Parameters
        ----------
        files : dict
            Paths by "corrected", "bias", "rejected", "mask" and "dseg"; those that do not exist are left out.

        Raises
        ------
        BiasCorrError
            An image cannot be read, is not 3-D, or lies on another grid than the scan's other images.
        """
        wanted: list[str] = [key for key in SHOWN if key in files]
        if not wanted:
            return
        if self._mask is None and "mask" in files:
            wanted.append("mask")
        volumes = {key: _read(files[key]) for key in wanted}
        first = next(iter(volumes.values()))
        for key, img in volumes.items():
            self._check_grid(img, first, files[key])
        arrays: dict[str, np.ndarray] = {
            key: np.asarray(img.dataobj, np.float32).reshape(img.shape[:3]) for key, img in volumes.items()
        }
        if self._mask is None:
            self._choose(self._find_mask(arrays), first)
        shown: dict[str, np.ndarray] = {key: arrays[key] for key in SHOWN if key in arrays}
        view, _ = self.chosen()
        slices: dict[str, Slices] = {key: view.slices(array) for key, array in shown.items()}
        brain = {key: self._inside(array) for key, array in shown.items()}
        if "corrected" in shown and "bias" in shown:
            slices["acquired"] = {
                plane: [c * b for c, b in zip(slices["corrected"][plane], slices["bias"][plane], strict=True)]
                for plane in PLANES
            }
            brain["acquired"] = brain["corrected"] * brain["bias"]
            self.limits = self.limits or intensity_limits(brain["acquired"])
        self.methods[method] = MethodImages(
            slices.get("acquired"), slices.get("corrected"), slices.get("bias"), brain, slices.get("rejected")
        )

    def add_tissues(self, file: Path, *, of_judge: bool = False) -> None:
        """Read the segmentation: one on the images' grid, or that of the judge, on a coarse one.

        Raises
        ------
        BiasCorrError
            As :meth:`add`, or none of the labels of gray matter, white matter and CSF is in it.
        """
        img = _read(file)
        labels = np.asarray(img.dataobj).reshape(img.shape[:3])
        if not of_judge or self._mask is None:
            self._check_grid(img, img, file)
        else:
            labels = labels_on(labels, img.affine, self._mask.shape, self.affine)
        self.of_judge = of_judge
        if not any((labels == label).any() for label in DSEG_LABELS.values()):
            raise InvalidImageError("none of the labels 1 (GM), 2 (WM), 3 (CSF) is in it", file=file.name)
        view, _ = self.chosen()
        self.tissues = view.slices(labels)
        self.labels = self._inside(labels).astype(np.int8)

    def chosen(self) -> tuple[View, Slices]:
        """The slices, and the mask on them.

        Raises
        ------
        InvalidImageError
            No image of the scan has been read.
        """
        if self.view is None or self.outline is None:
            raise InvalidImageError("slices are chosen from an image of the scan")
        return self.view, self.outline

    @property
    def gray_scale(self) -> tuple[float, float]:
        """Ends of the gray scale.

        Raises
        ------
        InvalidImageError
            No method's image and field have been read.
        """
        if self.limits is None:
            raise InvalidImageError("the gray scale is that of an acquired image: a corrected one and its field")
        return self.limits

    @property
    def field_scale(self) -> tuple[float, float]:
        """Ends of the fields' scale."""
        return field_limits([images.brain["bias"] for images in self.methods.values() if "bias" in images.brain])

    def _inside(self, array: np.ndarray) -> np.ndarray:
        """Values in the mask, always in one order: that of NIfTI files, which is many times faster to go through."""
        if self._inside_mask is None:
            return array.T.ravel()
        return array.T.ravel().take(self._inside_mask)

    def _choose(self, mask: np.ndarray, img: nib.Nifti1Image) -> None:
        self._mask, self.affine = mask, img.affine
        self._inside_mask = np.flatnonzero(mask.T)
        self.view = view = View.through(mask, nifti.voxel_size_mm(img))
        self.outline = view.slices(mask)
        middle = [(a + b - 1) / 2 for a, b in zip(view.start, view.stop, strict=True)]
        self.position_mm = tuple(
            tuple(float(_world(img.affine, middle, axis, i)) for i in view.at[axis]) for axis in range(3)
        )

    def _check_grid(self, img, first, file: Path) -> None:
        if not nifti.same_grid(img, first):
            raise GridMismatchError("not on the grid of the other images of this scan", file=file.name, value=img.shape)
        if self._mask is not None and img.shape[:3] != self._mask.shape:
            raise GridMismatchError(
                "not on the grid of the other images of this scan",
                file=file.name,
                value=f"{img.shape[:3]}, not {self._mask.shape}",
            )

    def _find_mask(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """The brain mask, or where there is none the head, or where there is no image everything."""
        if "mask" in arrays and (arrays["mask"] > 0).any():
            return arrays["mask"] > 0
        self.masked = False
        some = arrays.get("corrected")
        if some is None or not (some > 0).any():
            return np.ones(next(iter(arrays.values())).shape, bool)
        return detect_head(np.nan_to_num(some, posinf=0, neginf=0))


def _world(affine: np.ndarray, voxel: list[float], axis: int, index: int) -> float:
    """Scanner coordinate in mm, along the axis nearest to an array axis, of a slice at its middle."""
    return nib.affines.apply_affine(affine, [*voxel[:axis], index, *voxel[axis + 1 :]])[axis]


def _read(file: Path) -> nib.Nifti1Image:
    img = nifti.load(file)
    if len(img.shape) < 3 or any(n != 1 for n in img.shape[3:]) or 0 in img.shape:
        raise InvalidImageError("a 3-D image is needed", file=file.name, value=f"shape {img.shape}")
    if img.get_data_dtype().kind not in "iufb" or not np.isfinite(img.affine).all():
        raise InvalidImageError("real numbers and a finite affine are needed", file=file.name)
    return nib.as_closest_canonical(img)
