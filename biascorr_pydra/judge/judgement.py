"""Which correction of a scan left less of its field: scores on tissue that no method made, and verdicts of pairs.

Of two images the better one is that in which tissue is more even, on the tissue that the segmentations of just these
two agree on: so a verdict is symmetric, and depends on no third image. Where the difference is within the noise, or too
small to matter, or there is too little tissue, the judge cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra.anatomy.contrast import CONTRAST_ORDER
from biascorr_pydra.errors import SegmentationError
from biascorr_pydra.metrics import (
    DSEG_LABELS,
    UndefinedMetricError,
    image_metrics,
    smoothed_log,
    tissue_masks,
    undefined_image_metrics,
    unevenness,
)

from .classes import three_tissues
from .noise import Blocks, interval
from .tissue import Grid, consensus

__all__ = [
    "ACQUIRED",
    "CANNOT_TELL",
    "JUDGE_VERSION",
    "LEAST_VOXELS",
    "RANKED_BY",
    "SAME",
    "Judgement",
    "Pair",
    "judge_images",
    "judge_pair",
]

#: Goes up with whatever changes a number or a verdict: records of another version are made anew.
JUDGE_VERSION = 1
ACQUIRED = "acquired"
#: The metrics that rank.
RANKED_BY = ("tissue_unevenness",)
CANNOT_TELL, SAME = "cannot tell", "same"
#: Voxels of a tissue on the coarse grid below which nothing is judged.
LEAST_VOXELS = 150
#: Relative change below which two numbers are one: the same image.
EQUAL = 1e-4
#: A smaller change, in percent, decides nothing, however sure it is.
LEAST_CHANGE = 1.0


@dataclass(frozen=True)
class Pair:
    """Two images of a scan, and which is the better one.

    Attributes
    ----------
    first, second : names of images
    verdict : the better one's name, "cannot tell", or "same" where the two images are one
    changes : metric of RANKED_BY -> (change in percent from first to second, low, high), with a 95% interval; empty
        where there is too little tissue
    voxels : tissue -> voxels on which both segmentations agree
    """

    first: str
    second: str
    verdict: str
    changes: Mapping[str, tuple[float, float, float]]
    voxels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """What the judge says of a scan.

    Attributes
    ----------
    reason : why nothing was judged; None where it was
    voxels : tissue -> voxels of the judge's grid
    metrics : image -> metrics of group "image" on the tissue that all images agree on, None where undefined
    pairs : every two images, in their order, each on the tissue that these two agree on
    tissue : int8 array on the coarse grid, 1 GM, 2 WM, that all images agree on; None where there is none
    grid : the coarse grid; None where there is none
    """

    reason: str | None = None
    voxels: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
    tissue: np.ndarray | None = None
    grid: Grid | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it, without the arrays; what is not finite becomes None."""
        content = {
            "reason": self.reason,
            "voxels": dict(self.voxels),
            "grid_mm": [] if self.grid is None else [round(size, 6) for size in self.grid.voxel_size_mm],
            "images": self.metrics,
            "pairs": [asdict(pair) for pair in self.pairs],
        }
        return {name: _finite(value) for name, value in content.items()}

    def tissue_image(self, affine: np.ndarray) -> nib.Nifti1Image | None:
        """The tissue as an image, where there is any.

        Parameters
        ----------
        affine : array (4, 4)
            Of the images that were judged.
        """
        if self.tissue is None or self.grid is None:
            return None
        img = nib.Nifti1Image(self.tissue.astype(np.uint8), self.grid.affine(affine))
        img.header.set_xyzt_units("mm")
        return img


def judge_images(
    images: Mapping[str, np.ndarray],
    mask: np.ndarray,
    voxel_size_mm: Sequence[float],
    *,
    suffix: str | None,
    seed: int = 0,
) -> Judgement:
    """Score a scan's images on the tissue that their segmentations agree on, and compare every two.

    Parameters
    ----------
    images : name -> float array (I, J, K)
        The acquired image under the name "acquired", and every delivered one under its method's name. All of them take
        part in the agreement: leave out what nobody is to use, such as the images of rejected fields.
    mask : boolean array, same shape
        Brain.
    voxel_size_mm : three floats
    suffix : BIDS suffix, which gives the order of the tissues
    seed : of the resampling

    Returns
    -------
    Judgement
        With a reason instead of numbers where the contrast is not known or there is too little tissue.
    """
    order = CONTRAST_ORDER.get(str(suffix))
    if order is None:
        return Judgement(f"the order of the tissues' intensities is not known for suffix {suffix!r}")
    if not mask.any():
        return Judgement("the brain mask is empty")
    grid = Grid.over(np.asarray(mask, bool), voxel_size_mm)
    coarse = {name: grid.mean(data) for name, data in images.items()}
    segmented, failed = _segmented(coarse, grid, order)
    if not segmented:
        return Judgement("; ".join(f"{name}: {why}" for name, why in failed.items()), grid=grid)
    pairs = tuple(
        judge_pair(
            (first, coarse[first]), (second, coarse[second]), _common(segmented, first, second, order), grid, seed
        )
        for first, second in combinations(coarse, 2)
    )
    tissue = consensus(list(segmented.values()), order)
    voxels = _voxels(tissue)
    few = f"{voxels['WM']} voxels of white and {voxels['GM']} of gray matter, and {LEAST_VOXELS} of each are needed"
    reason = f"the segmentations agree on too little tissue: {few}" if min(voxels.values()) < LEAST_VOXELS else None
    if reason and not any(pair.changes for pair in pairs):
        return Judgement(reason, voxels, tissue=tissue, grid=grid)
    reasons = {name: failed.get(name, reason) for name in coarse}
    scores = {name: _scores(data, tissue, grid, reasons[name]) for name, data in coarse.items()}
    return Judgement(None, voxels, scores, pairs, tissue, grid)


def _segmented(
    coarse: Mapping[str, np.ndarray], grid: Grid, order: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tissues of each image that has three, where it is positive; and why the others have not."""
    segmented, failed = {}, {}
    for name, data in coarse.items():
        try:
            segmented[name] = three_tissues(data, grid.inside & (data > 0), order)
        except SegmentationError as error:
            failed[name] = error.rule
    return segmented, failed


def _common(segmented: Mapping[str, np.ndarray], first: str, second: str, order: Sequence[str]) -> np.ndarray | None:
    """Tissue that two images agree on; None where one of them has not been segmented."""
    if first not in segmented or second not in segmented:
        return None
    return consensus([segmented[first], segmented[second]], order)


def _scores(data: np.ndarray, tissue: np.ndarray, grid: Grid, reason: str | None) -> dict[str, Any]:
    if reason:
        return undefined_image_metrics(reason)
    masks = tissue_masks(tissue)
    return image_metrics(data, masks["GM"], masks["WM"], voxel_size_mm=grid.voxel_size_mm)


def _voxels(tissue: np.ndarray) -> dict[str, int]:
    masks = tissue_masks(tissue)
    return {name: int(masks[name].sum()) for name in ("WM", "GM")}


def judge_pair(
    first: tuple[str, np.ndarray], second: tuple[str, np.ndarray], tissue: np.ndarray | None, grid: Grid, seed: int = 0
) -> Pair:
    """Compare two images on tissue that their segmentations agree on.

    Parameters
    ----------
    first, second : name, and float array (I, J, K) on the coarse grid, positive where there is tissue
    tissue : array, same shape, 1 GM, 2 WM; None where they have none in common
    grid : the coarse grid
    seed : of the resampling
    """
    names = first[0], second[0]
    voxels = {"WM": 0, "GM": 0} if tissue is None else _voxels(tissue)
    if tissue is None or min(voxels.values()) < LEAST_VOXELS:
        return Pair(*names, CANNOT_TELL, {}, voxels)
    logs = [
        {
            tissue_name: smoothed_log(data, tissue == DSEG_LABELS[tissue_name], grid.voxel_size_mm, tissue_name)
            for tissue_name in ("GM", "WM")
        }
        for _, data in (first, second)
    ]
    try:
        before, after = (unevenness(log["GM"], log["WM"]) for log in logs)
    except UndefinedMetricError:
        return Pair(*names, CANNOT_TELL, {}, voxels)
    if min(before, after) <= 0:  # tissue of one value: nobody acquired that
        return Pair(*names, CANNOT_TELL, {}, voxels)
    blocks = Blocks.of(tissue, grid.voxel_size_mm, seed=seed)
    low, high = interval(*(blocks.resampled(log) for log in logs))
    change = (100 * (after / before - 1), low, high)
    return Pair(*names, _verdict(*names, *change), {RANKED_BY[0]: change}, voxels)


def _verdict(first: str, second: str, change: float, low: float, high: float) -> str:
    if max(abs(change), abs(low), abs(high)) < 100 * EQUAL:
        return SAME
    if abs(np.log1p(change / 100)) < np.log1p(LEAST_CHANGE / 100):  # the same limit in both directions
        return CANNOT_TELL
    return second if high < 0 else first if low > 0 else CANNOT_TELL


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
