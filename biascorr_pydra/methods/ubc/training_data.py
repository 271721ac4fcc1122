"""What UBC is trained on: heads simulated from label maps, or the images of a BIDS data set; 100 samples per axis."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biascorr_pydra.bids import DATASET_DESCRIPTION, survey
from biascorr_pydra.errors import BiasCorrError, InvalidImageError, InvalidParameterError
from biascorr_pydra.images.canonical import to_canonical
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.images.nifti import inspect, load
from biascorr_pydra.simulation.heads import HeadSampler, SimulatedHead, load_label_map, sample_log_bias, simulate_head

__all__ = ["Heads", "Scans", "extra_field", "find_files", "is_bids", "open_heads", "open_scans"]

CONTRASTS = ("T1w", "T2w", "FLAIR")


def is_bids(folder: Path) -> bool:
    """Whether a folder is a BIDS data set and not one of label maps."""
    return (folder / DATASET_DESCRIPTION).is_file() or any(path.is_dir() for path in folder.glob("sub-*"))


def find_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The anatomical images of a BIDS data set that have one of these suffixes, or a folder's label maps.

    Raises
    ------
    InvalidParameterError
        There is no label map.
    BIDSError
        No image has one of these suffixes.
    """
    if is_bids(folder):
        jobs, _ = survey(folder, suffixes=suffixes, allow_undescribed=True)
        return [job.source for job in jobs]
    if files := sorted(folder.glob("*.nii.gz")):
        return files
    raise InvalidParameterError(
        "the data are a BIDS data set, or a folder of label maps (.nii.gz)",
        file=folder,
        value="neither sub-* folders nor label maps" if folder.is_dir() else "no such folder",
    )


@dataclass(frozen=True)
class Heads:
    """Label maps, and how heads are simulated from them."""

    label_maps: list[torch.Tensor]
    sampler: HeadSampler
    size: int

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Images (B, 1, size, size, size) of mean 1, randomly flipped, with "log_bias" and "brain" as their truth."""
        heads = []
        for _ in range(batch):
            labels = self.label_maps[_one_of(self.label_maps, generator)]
            flips = _flips(generator)
            head = simulate_head(labels, self.sampler.sample(generator), (self.size,) * 3)
            heads.append({name: value.flip(flips) for name, value in vars(head).items()})
        stacked = {name: torch.stack([head[name] for head in heads])[:, None] for name in ("log_bias", "brain")}
        return {"image": _mean_one(torch.stack([head["image"] for head in heads])[:, None]), **stacked}

    def to_score(self) -> Iterator[tuple[str, SimulatedHead]]:
        """Heads to score a network on, always the same: of each label map one of each contrast, with a smooth field."""
        for labels in self.label_maps:
            for contrast in CONTRASTS:
                generator = torch.Generator().manual_seed(0)
                sampler = replace(self.sampler, contrasts=(contrast,), field_sd=(0.2, 0.2), field_spans=(1, 2))
                yield contrast, simulate_head(labels, sampler.sample(generator), (self.size,) * 3)

    def facts(self) -> dict[str, Any]:
        return {"kind": "heads simulated from label maps", "simulator": asdict(self.sampler)}


@dataclass(frozen=True)
class Scans:
    """Real images in memory, (N, 1, size, size, size) of mean 1, float16; which files could not be used, and why."""

    images: torch.Tensor
    left_out: dict[str, str]

    def draw(self, batch: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Images (B, 1, size, size, size), randomly flipped."""
        chosen = []
        for _ in range(batch):
            image = self.images[_one_of(self.images, generator)]
            chosen.append(image.flip([axis + 1 for axis in _flips(generator)]).float())
        return {"image": torch.stack(chosen)}

    def facts(self) -> dict[str, Any]:
        return {"kind": "images of a BIDS data set", "used": len(self.images), "left_out": self.left_out}


def open_scans(files: Sequence[Path], root: Path, size: int) -> Scans:
    """Read images and resample them. Those that cannot be used are left out, by name and with a warning.

    Raises
    ------
    InvalidImageError
        None of them can be used.
    """
    images, left_out = [], {}
    for file in files:
        try:
            images.append(_read(file, size))
        except BiasCorrError as error:
            left_out[file.relative_to(root).as_posix()] = error.rule
            warnings.warn(f"{file} is left out: {error}", stacklevel=2)
    if not images:
        raise InvalidImageError("at least one of the images can be used", file=root, value=f"{len(files)} cannot")
    return Scans(torch.stack(images), left_out)


def _read(file: Path, size: int) -> torch.Tensor:
    img = load(file)
    data, *_ = inspect(img, name=file)
    image = torch.from_numpy(np.clip(to_canonical(data, img.affine, (size,) * 3), 0, None))[None]
    if not image.any():
        raise InvalidImageError("the image has positive voxels", file=file)
    # A voxel far beyond the others would be infinite in 16 bits.
    return _mean_one(image[None])[0].clamp(max=1e4).half()


def _mean_one(images: torch.Tensor) -> torch.Tensor:
    return images / images.mean((2, 3, 4), keepdim=True)


def _one_of(things: Sized, generator: torch.Generator) -> int:
    return int(torch.randint(len(things), (), generator=generator))


def _flips(generator: torch.Generator) -> list[int]:
    return [axis for axis in range(3) if torch.rand((), generator=generator) < 0.5]


def extra_field(size: int) -> np.ndarray:
    """A known log field (I, J, K), always the same, to see how much of it a network sees."""
    points = sample_log_bias((2, 2, 2), 0.15, torch.Generator().manual_seed(1)).numpy()
    return LogBiasSpline.spanning(points, (size,) * 3).on_grid((size,) * 3)


def open_heads(files: Sequence[Path], sampler: HeadSampler, size: int) -> Heads:
    """Read label maps."""
    return Heads([load_label_map(file) for file in files], sampler, size)
