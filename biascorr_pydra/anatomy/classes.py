"""Three classes of intensity by ANTs' Atropos (antspyx); see the module `tissue`.

antspyx's own functions leave their probability images in the temporary folder, and name no other way than the module
`tempfile`'s global. So Atropos is called here as they call it, and writes into a folder of its own.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from biascorr_pydra.errors import SegmentationError

if TYPE_CHECKING:
    from ants import ANTsImage

__all__ = ["N_CLASSES", "find_classes", "ranks"]

N_CLASSES = 3
MRF_WEIGHT = 0.2
ITERATIONS = 5
KMEANS_MRF_WEIGHT = 0.1  # and the iterations below: as in antspyx's kmeans_segmentation
KMEANS_ITERATIONS = 5


def find_classes(
    data: np.ndarray, inside: np.ndarray, voxel_size_mm: tuple[float, ...], method: str, *, name: str | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Classes of the voxels inside a mask and the probability of each, by intensity and neighbours alone.

    Parameters
    ----------
    data : array (I, J, K), finite
    inside : boolean array (I, J, K)
    voxel_size_mm : three floats
    method : 'atropos' or 'kmeans'
    name : str, optional
        The image's, for messages.

    Returns
    -------
    classes : int8 array (I, J, K)
        1, 2 or 3, and 0 outside.
    probabilities : three float32 arrays (I, J, K)

    Raises
    ------
    SegmentationError
        Atropos failed, as it does where there are no three classes.
    """
    import ants

    box = ndimage.find_objects(inside.astype(np.int8))[0]  # Atropos takes time for every voxel, masked or not
    # A few very bright voxels (vessels, skin) would take a class of their own.
    low, high = np.percentile(data[inside], (0.5, 99.5))
    # Axes and place play no part, and ITK refuses some real headers.
    values, mask = (
        ants.from_numpy(np.ascontiguousarray(array[box], np.float32), spacing=voxel_size_mm)
        for array in (np.clip(data, low, high), inside)
    )
    try:
        segmented, probable = _kmeans(values, mask) if method == "kmeans" else _atropos(values, mask)
    except Exception as error:  # antspyx raises nothing more particular
        raise SegmentationError(
            f"{method!r} failed: it may be that the brain has not three classes of intensity",
            file=name,
            value=str(error),
            next_step="Look at the image and its mask, or give a segmentation.",
        ) from error

    def whole(part: np.ndarray) -> np.ndarray:
        array = np.zeros(data.shape, np.float32)
        array[box] = np.where(inside[box], part, 0)
        return array

    return np.round(whole(segmented)).astype(np.int8), [whole(part) for part in probable]


def _atropos(values: ANTsImage, mask: ANTsImage) -> tuple[np.ndarray, list[np.ndarray]]:
    return _run(values, mask, start=f"Kmeans[{N_CLASSES}]", mrf_weight=MRF_WEIGHT, iterations=ITERATIONS)


def _kmeans(values: ANTsImage, mask: ANTsImage) -> tuple[np.ndarray, list[np.ndarray]]:
    """As antspyx's ``kmeans_segmentation``: on intensities from 0 to 1, inside the mask with its holes filled."""
    import ants

    return _run(
        ants.iMath(values, "Normalize"),
        ants.iMath(mask, "FillHoles").threshold_image(1, 2),
        start=f"Kmeans[{N_CLASSES}]",
        mrf_weight=KMEANS_MRF_WEIGHT,
        iterations=KMEANS_ITERATIONS,
    )


def _run(
    values: ANTsImage, mask: ANTsImage, *, start: str, mrf_weight: float, iterations: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Atropos' classes and the probabilities of each, as arrays."""
    import ants
    from ants.internal import get_lib_fn, get_pointer_string, process_arguments

    classes, labels = values.clone("unsigned int"), mask.clone("unsigned int")
    with TemporaryDirectory(prefix="biascorr-") as folder:
        options = {
            "d": values.dimension,
            "a": values,
            "m": f"[{mrf_weight},1x1x1]",
            "o": f"[{get_pointer_string(classes)},{folder}/class%02d.nii.gz]",
            "c": f"[{iterations},0]",
            "i": start,
            "x": labels,
            "r": 0,  # a constant seed: the same scan has the same tissues each time
        }
        status = get_lib_fn("Atropos")(process_arguments(options))
        if status:
            raise RuntimeError(f"Atropos ended with status {status}")
        files = sorted(Path(folder).glob("class*.nii.gz"))
        if not files:
            raise RuntimeError("Atropos wrote no probabilities")
        probabilities = [ants.image_read(str(file)).numpy() for file in files]
    return classes.clone("float").numpy(), probabilities


def ranks(data: np.ndarray, classes: np.ndarray, method: str, *, name: str | None = None) -> list[int]:
    """Indices, from 0, of the three classes from the darkest to the brightest.

    Raises
    ------
    SegmentationError
        A class is empty, or two have the same mean.
    """
    means = [float(data[classes == k].mean()) if (classes == k).any() else np.nan for k in (1, 2, 3)]
    if not np.all(np.isfinite(means)) or len(set(means)) < 3:
        raise SegmentationError(
            f"{method!r} did not find three classes of intensity in the brain",
            file=name,
            value=f"class means {', '.join(f'{mean:g}' for mean in means)}",
            next_step="Look at the image and its mask, or give a segmentation.",
        )
    return [int(k) for k in np.argsort(means)]
