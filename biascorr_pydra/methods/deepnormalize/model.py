"""DeepNormalize on one scan: bring it to the networks' grid and scale, run them over patches, bring the results back.

The networks see the brain on cubes of 1 mm in RAS+ order, 0 outside the brain, intensities divided so that their 99th
percentile is 0.8. Normalized intensities run from 0 to 1; they are intensities of no scanner, and the contrast between
tissues is not the scan's.

References
----------
Delisle et al. Realistic image normalization for multi-domain segmentation. Medical Image Analysis, 2022.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from biascorr_pydra import weights
from biascorr_pydra.errors import InvalidImageError, InvalidMaskError, InvalidParameterError
from biascorr_pydra.images.canonical import from_canonical, to_canonical
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.metrics import DSEG_LABELS

from .networks import CLASSES, DeepNormalize
from .patches import average_over_patches

__all__ = [
    "LEVEL",
    "PATCH",
    "PERCENTILE",
    "STRIDES",
    "WEIGHTS",
    "Normalized",
    "Prepared",
    "Ran",
    "apply",
    "cropped",
    "fused",
    "has_bfloat16",
    "load_network",
    "normalize_array",
    "prepare",
    "run",
    "standardize",
]

WEIGHTS = "deepnormalize"
PATCH = 32
#: Name -> samples from one patch to the next: as in the paper, and faster.
STRIDES = {"paper": 8, "fast": 16}
VOXEL_MM = 1.0
PERCENTILE, LEVEL = 99.0, 0.8
BATCHES = {"cpu": 8, "cuda": 128}


@dataclass(frozen=True)
class Prepared:
    """A scan as the networks take it, and the way back.

    Attributes
    ----------
    image : float32 array (C, I, J, K)
        RAS+ order, 1 mm, cropped to the brain and padded to at least one patch; 0 outside the brain.
    scales : one float for each modality
        Intensity that 1 stands for.
    grid : three ints
        Of the uncropped grid.
    first : three ints
        Where ``image`` begins in it; negative where it was padded.
    affine, shape : of the native grid
    """

    image: np.ndarray
    scales: tuple[float, ...]
    grid: tuple[int, int, int]
    first: tuple[int, int, int]
    affine: np.ndarray
    shape: tuple[int, int, int]

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Values (I, J, K) on the prepared grid to the native one, linear, 0 beyond what was cropped; float32."""
        whole = np.zeros(self.grid, np.float32)
        in_whole, in_values = [], []
        for n, first, size in zip(self.grid, self.first, values.shape, strict=True):
            start, stop = max(first, 0), min(first + size, n)
            in_whole.append(slice(start, stop))
            in_values.append(slice(start - first, stop - first))
        whole[tuple(in_whole)] = values[tuple(in_values)]
        return from_canonical(whole, self.affine, self.shape)


@dataclass(frozen=True)
class Normalized:
    """What the networks made of a scan, on its native grid.

    Attributes
    ----------
    images : float32 array (C, I, J, K), 0 to 1
        One normalized image for each modality, 0 outside the brain.
    probabilities : dict of "CSF", "GM" and "WM" to float32 arrays (I, J, K)
    mask : boolean array (I, J, K)
        The brain as it was used.
    record : dict
        weights_sha256, stride, precision, scales; JSON-serialisable.
    """

    images: np.ndarray
    probabilities: dict[str, np.ndarray]
    mask: np.ndarray
    record: dict

    def dseg(self) -> np.ndarray:
        """The likeliest tissue of each voxel of the brain, uint8: 1 GM, 2 WM, 3 CSF; 0 where that is background."""
        stacked = np.stack([self.probabilities[tissue] for tissue in DSEG_LABELS])
        labels = np.array(list(DSEG_LABELS.values()), np.uint8)
        likely = (stacked.max(0) > 1 - stacked.sum(0)) & self.mask
        return np.where(likely, labels[stacked.argmax(0)], 0).astype(np.uint8)


def prepare(images: Sequence[np.ndarray], affine: np.ndarray, mask: np.ndarray, *, margin: int = 0) -> Prepared:
    """Bring a scan to the networks' grid and scale.

    Parameters
    ----------
    images : arrays (I, J, K)
        One for each modality, on one grid; finite. Negative intensities become 0.
    affine : array (4, 4)
    mask : boolean array (I, J, K)
        The brain.
    margin : int
        Samples left around the brain.

    Raises
    ------
    InvalidMaskError
        The mask is empty on the grid of 1 mm.
    InvalidImageError
        An image is 0 in most of the brain.
    """
    shape = tuple(mask.shape)
    grid = _grid(shape, affine)
    inside = to_canonical(mask.astype(np.float32), affine, grid) >= 0.5
    if not inside.any():
        raise InvalidMaskError("the brain mask has voxels", value=f"{int(np.sum(mask))} of the image's")
    first, stop = _box(inside, margin)
    prepared, scales = [], []
    for data in images:
        moved = to_canonical(np.clip(data, 0, None), affine, grid)
        scale = float(np.percentile(moved[inside], PERCENTILE)) / LEVEL
        if not scale > 0:
            raise InvalidImageError("the image is positive in the brain", value=f"{PERCENTILE:g}th percentile 0")
        moved[~inside] = 0
        prepared.append(cropped(moved, first, stop) / scale)
        scales.append(scale)
    return Prepared(np.stack(prepared).astype(np.float32), tuple(scales), grid, first, np.asarray(affine), shape)


def _grid(shape, affine) -> tuple[int, int, int]:
    """Samples of the canonical grid of 1 mm over the field of view."""
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import io_orientation

    grid = [0, 0, 0]
    for axis, (world, _) in enumerate(io_orientation(affine)):
        grid[int(world)] = round((shape[axis] - 1) * voxel_sizes(affine)[axis] / VOXEL_MM) + 1
    return grid[0], grid[1], grid[2]


def _box(inside: np.ndarray, margin: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First sample and the one after the last of the brain with its margin, at least a patch long."""
    firsts, stops = [], []
    for others in ((1, 2), (0, 2), (0, 1)):
        where = np.flatnonzero(inside.any(axis=others))
        first, stop = int(where[0]) - margin, int(where[-1]) + 1 + margin
        short = max(0, PATCH - (stop - first))
        firsts.append(first - short // 2)
        stops.append(stop + short - short // 2)
    return (firsts[0], firsts[1], firsts[2]), (stops[0], stops[1], stops[2])


def cropped(data: np.ndarray, first: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """The part from ``first`` to before ``stop``, with zeros where these lie outside."""
    pads = [(max(0, -a), max(0, b - n)) for a, b, n in zip(first, stop, data.shape, strict=True)]
    part = data[tuple(slice(max(0, a), b) for a, b in zip(first, stop, strict=True))]
    return np.pad(part, pads)


def standardize(image: np.ndarray) -> np.ndarray:
    """The paper's baseline: minus the mean, by the standard deviation, over the voxels that are not 0; (C, I, J, K)."""
    z_scores = np.zeros_like(image)
    for values, out in zip(image, z_scores, strict=True):
        inside = values != 0
        out[inside] = (values[inside] - values[inside].mean()) / max(float(values[inside].std()), 1e-6)
    return z_scores


@lru_cache(maxsize=2)
def load_network(source: str, sha256: str, device: str) -> DeepNormalize:
    """The network of these weights, ready to run; what it is made with is read from the card.

    The hash is part of the key so that weights that change on disk are read again.

    Raises
    ------
    WeightsError
        The weights are missing, damaged, or another network's.
    """
    network = DeepNormalize(**weights.card_of(source).get("network", {}))
    weights.load_network(network, source)
    return fused(network, device)


def fused(network: DeepNormalize, device: str) -> DeepNormalize:
    """A copy for inference: batch normalization folded into the convolutions before it."""
    network = copy.deepcopy(network).eval()
    for module in [m for part in (network.generator, network.segmenter) if part for m in part.modules()]:
        if isinstance(module, torch.nn.Sequential) and len(module) > 1 and isinstance(module[1], torch.nn.BatchNorm3d):
            for i in range(0, len(module), 3):
                convolution, norm = cast(torch.nn.Conv3d, module[i]), cast(torch.nn.BatchNorm3d, module[i + 1])
                module[i], module[i + 1] = fuse_conv_bn_eval(convolution, norm), torch.nn.Identity()
    # torch declares memory_format for no form of Module.to.
    network = network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return network.requires_grad_(False)


def apply(
    network: DeepNormalize,
    image: np.ndarray,
    *,
    stride: int = 8,
    device: str = "cpu",
    batch: int | None = None,
    bfloat16: bool = False,
    progress: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Normalize and segment a prepared image over overlapping patches.

    Parameters
    ----------
    network : from :func:`load_network`, or any in evaluation mode
    image : float32 array (C, I, J, K), from :func:`prepare`
    stride : int
        Samples from one patch to the next, 8 in the paper.
    batch : int, optional
        Patches at once; by default 8 on a CPU and 128 on a GPU.
    bfloat16 : bool
        Compute in 16 bits where torch thinks it safe.
    progress : callable, optional
        Of the share that is done.

    Returns
    -------
    normalized : float32 array (C, I, J, K), 0 to 1
    probabilities : float32 array (4, I, J, K)
        Of :data:`~biascorr_pydra.methods.deepnormalize.networks.CLASSES`; 0 where no patch has a voxel of the brain.
    """

    def run(patches: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(patches).to(device, memory_format=torch.channels_last_3d)
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            normalized, logits = network(x)
        return torch.cat([normalized.float(), logits.float().softmax(1)], 1).cpu().numpy()

    channels = image.shape[0]
    with torch.inference_mode():
        averages = average_over_patches(
            image,
            run,
            channels + len(CLASSES),
            size=PATCH,
            stride=stride,
            batch=batch or BATCHES[device],
            progress=progress,
        )
    return averages[:channels], averages[channels:]


def has_bfloat16(device: str) -> bool:
    """Whether 16 bits are fast there: a GPU or CPU with instructions for them."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@dataclass(frozen=True)
class Ran:
    """A prepared scan, its normalized images (C, I, J, K) and probabilities (4, I, J, K) there, its mask, a record."""

    prepared: Prepared
    normalized: np.ndarray
    probabilities: np.ndarray
    mask: np.ndarray
    record: dict


def run(
    images: Sequence[np.ndarray],
    affine: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    stride: int = 8,
    source: str | None = None,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Ran:
    """Normalize and segment a scan; parameters and errors as of :func:`normalize_array`, results on the 1 mm grid."""
    source = source or WEIGHTS
    sha256 = weights.sha256_of(source)
    network = load_network(source, sha256, device)
    wanted = network.segmenter.channels
    if len(images) != wanted:
        raise InvalidParameterError(f"the weights are for {wanted} modalities", value=f"{len(images)} images")
    if mask is None:
        mask = detect_head(images[0]) & (images[0] > 0)
    prepared = prepare(images, affine, mask)
    low = has_bfloat16(device)
    outputs = apply(network, prepared.image, stride=stride, device=device, bfloat16=low, progress=progress)
    record = {
        "weights_sha256": sha256,
        "stride": stride,
        "patch": PATCH,
        "precision": "bfloat16 (mixed)" if low else "float32",
        "scales": [float(scale) for scale in prepared.scales],
    }
    return Ran(prepared, *outputs, mask, record)


def normalize_array(
    images: Sequence[np.ndarray],
    affine: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    speed: str = "paper",
    weights_file: str | None = None,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Normalized:
    """Normalize and segment a scan.

    Parameters
    ----------
    images : float arrays (I, J, K)
        One for each modality that the weights are for, on one grid; finite.
    affine : array (4, 4)
    mask : boolean array (I, J, K), optional
        The brain. The networks know nothing else: without a mask, the voxels of the detected head that are not 0
        stand in, which is right for an image that is stripped already.
    speed : "paper" (stride 8) or "fast" (stride 16)
    weights_file : path, optional
        Weights to use instead of the package's own.
    device : "cpu" or "cuda"

    Raises
    ------
    InvalidParameterError
        An unknown speed, or another number of modalities than the weights are for.
    InvalidImageError, InvalidMaskError, WeightsError
    """
    if speed not in STRIDES:
        raise InvalidParameterError(f"speed is one of {', '.join(STRIDES)}", value=repr(speed))
    ran = run(images, affine, mask, stride=STRIDES[speed], source=weights_file, device=device, progress=progress)
    restore = ran.prepared.restore
    tissues = {name: restore(ran.probabilities[i]) for i, name in enumerate(CLASSES) if name != "BG"}
    normalized = np.stack([restore(channel) for channel in ran.normalized]) * ran.mask
    return Normalized(normalized.astype(np.float32), tissues, ran.mask, ran.record)
