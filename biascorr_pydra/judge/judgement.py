"""Which correction of a scan left less of its field: scores on tissue that no method made, and verdicts of pairs.

A correction is better than another only where both of two numbers say so: the spread of log intensities within tissue,
and that spread relative to the contrast. A field that is left raises both; a correction that flattens contrast lowers
the first alone. Where they disagree, or the difference is within the noise, the judge cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from biascorr_pydra.anatomy.contrast import CONTRAST_ORDER
from biascorr_pydra.errors import SegmentationError
from biascorr_pydra.metrics import image_metrics, tissue_masks

from .noise import Replicates
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
]

#: Goes up with whatever changes a number or a verdict: records of another version are made anew.
JUDGE_VERSION = 1
ACQUIRED = "acquired"
#: Metrics that both must be lower for a correction to be the better one.
RANKED_BY = ("tissue_spread", "tissue_spread_to_contrast")
CANNOT_TELL, SAME = "cannot tell", "same"
#: Voxels of a tissue on the coarse grid below which nothing is judged.
LEAST_VOXELS = 500
#: Relative change below which two numbers are one: the same image.
EQUAL = 1e-4


@dataclass(frozen=True)
class Pair:
    """Two images of a scan, and which is the better one.

    Attributes
    ----------
    first, second : names of images
    verdict : the better one's name, "cannot tell", or "same" where the two images are one
    changes : metric of RANKED_BY -> (change in percent from first to second, low, high), with a 95% interval
    """

    first: str
    second: str
    verdict: str
    changes: Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Judgement:
    """What the judge says of a scan.

    Attributes
    ----------
    reason : why nothing was judged; None where it was
    voxels : tissue -> voxels of the judge's grid
    metrics : image -> metrics of group "image" on the judge's tissue, None where undefined
    pairs : every two images, in their order
    tissue : int8 array on the coarse grid, 1 GM, 2 WM; None where there is none
    grid : the coarse grid; None where there is none
    """

    reason: str | None = None
    voxels: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
    tissue: np.ndarray | None = None
    grid: Grid | None = None


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
    inside = grid.inside & np.all([data > 0 for data in coarse.values()], axis=0)
    try:
        tissue = consensus(list(coarse.values()), inside, order)
    except SegmentationError as error:
        return Judgement(error.rule)
    masks = tissue_masks(tissue)
    voxels = {name: int(masks[name].sum()) for name in ("WM", "GM")}
    if min(voxels.values()) < LEAST_VOXELS:
        return Judgement(
            f"the segmentations agree on too little tissue: {voxels['WM']} voxels of white and {voxels['GM']} of gray "
            f"matter, and {LEAST_VOXELS} of each are needed",
            voxels,
            tissue=tissue,
            grid=grid,
        )
    scores = {
        name: image_metrics(data, masks["GM"], masks["WM"], voxel_size_mm=grid.voxel_size_mm)
        for name, data in coarse.items()
    }
    replicates = Replicates.of(coarse, tissue, grid.voxel_size_mm, seed=seed)
    pairs = tuple(_pair(first, second, scores, replicates) for first, second in combinations(coarse, 2))
    return Judgement(None, voxels, scores, pairs, tissue, grid)


def _pair(first: str, second: str, scores: Mapping[str, Mapping[str, Any]], replicates: Replicates) -> Pair:
    changes = {}
    for name in RANKED_BY:
        before, after = scores[first][name], scores[second][name]
        changes[name] = (100 * (after / before - 1), *replicates.interval(name, first, second))
    return Pair(first, second, _verdict(first, second, changes), changes)


def _verdict(first: str, second: str, changes: Mapping[str, tuple[float, float, float]]) -> str:
    values = [change for change, _, _ in changes.values()]
    if all(abs(value) < 100 * EQUAL for value in values):
        return SAME
    if all(high < 0 for _, _, high in changes.values()):
        return second
    if all(low > 0 for _, low, _ in changes.values()):
        return first
    return CANNOT_TELL
