"""What the steps need, as functions of the step: measured peaks, rounded up (see docs/workstation.md)."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import nibabel as nib

from biascorr_pydra.anatomy.tissue import NETWORKS
from biascorr_pydra.errors import UnknownMethodError
from biascorr_pydra.methods import Corrector, MethodSpec, get_corrector
from biascorr_pydra.resources import Resources

__all__ = ["for_brain", "for_correction", "for_judge", "for_measure", "for_normalization", "for_tissue", "memory_gb"]

STEP_GB = 0.1  # memory is asked for in these steps


def memory_gb(file: Any, base: float, bytes_per_voxel: float) -> float:
    """Memory for work on an image: a base and so many bytes a voxel; the base alone where the image cannot be read."""
    path = Path(str(file))
    try:
        about = path.stat()
        voxels = _voxels(path, about.st_mtime_ns, about.st_size)
    except Exception:  # what is wrong with the image is said by the step that reads it
        voxels = 0
    steps = -(-(base + voxels * bytes_per_voxel / 1e9) // STEP_GB)
    return round(steps * STEP_GB, 1)


@lru_cache(maxsize=4096)  # a compressed header takes 40 ms to read, and each step of a scan asks
def _voxels(path: Path, mtime_ns: int, size: int) -> int:
    img: Any = nib.load(path)
    return prod(img.shape)


def for_correction(task) -> Resources:
    """A GPU if the device is cuda and the method can use one."""
    try:
        method = get_corrector(MethodSpec.parse(task.method).method)
    except UnknownMethodError:  # the step itself says so
        base, bytes_per_voxel, gpus = Corrector.memory_gb, Corrector.bytes_per_voxel, 0
    else:
        base, bytes_per_voxel = method.memory_gb, method.bytes_per_voxel
        gpus = int(task.device == "cuda" and method.uses_device)
    return Resources(gpus=gpus, mem_gb=memory_gb(task.in_file, base, bytes_per_voxel))


def for_brain(task) -> Resources:
    """A GPU if the device is cuda and the mask is deepbet's."""
    deep = task.method == "deepbet" or (task.method == "auto" and task.suffix == "T1w")
    return Resources(gpus=int(deep and task.device == "cuda"), mem_gb=memory_gb(task.in_file, 1.3, 40))


def for_tissue(task) -> Resources:
    """Several images of probabilities; for a network, what its method needs, and a GPU if the device is cuda."""
    if task.method in NETWORKS:
        return _for_networks(task, NETWORKS[task.method]).updated({"gpus": int(task.device == "cuda")})
    return Resources(mem_gb=memory_gb(task.in_file, 0.5, 80))


def for_normalization(task) -> Resources:
    """The networks, and five maps on a grid of 1 mm."""
    return _for_networks(task, "deepnormalize")


def _for_networks(task, name: str) -> Resources:
    method = get_corrector(name)
    return Resources(mem_gb=memory_gb(task.in_file, method.memory_gb, method.bytes_per_voxel))


def for_judge(task) -> Resources:
    """One image at a time in full, however many there are; the rest is on a coarse grid."""
    return Resources(mem_gb=memory_gb(task.in_file, 0.3, 30))


def for_measure(task) -> Resources:
    """Four images in memory."""
    return Resources(mem_gb=memory_gb(task.in_file, 0.4, 40))
