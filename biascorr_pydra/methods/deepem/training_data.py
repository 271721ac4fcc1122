"""What deepem's networks are trained on: heads simulated from label maps, each voxel with its class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.simulation.heads import (
    FIRST_EXTRA_CEREBRAL,
    GROUPS,
    N_LABELS,
    HeadSampler,
    SimulatedHead,
    blur,
    load_label_map,
    sample_log_bias,
    simulate_head,
)

from .networks import CLASSES, MIXED
from .pure_tissue import SIZE

__all__ = ["ClassedHeads", "classes_of", "cut_view", "label_maps", "open_classed", "pure_of", "thick_slices"]

CONTRASTS = ("T1w", "T2w", "FLAIR")
#: Shares of heads: whose labels differ within a group, with slices twice as thick, with a part of the view cut off.
UNEVEN, THICK, CUT = 0.7, 0.35, 0.12
UNEVEN_SD = 0.03
CUT_VOXELS = (5, 25)
#: Share of heads blurred once more, as by interpolation, noise and all.
BLURRED = 0.75
#: The log intensity of a pure voxel differs from its label's by less than this.
PURE = 0.04
#: Most that is left of a field: so large that what is pure cannot be told by intensity alone.
LEFT = 0.08


def label_maps(folder: Path) -> list[Path]:
    """The label maps (.nii.gz) of a folder.

    Raises
    ------
    InvalidParameterError
        There is none.
    """
    if files := sorted(folder.glob("*.nii.gz")):
        return files
    raise InvalidParameterError(
        "the data are a folder of label maps (.nii.gz)",
        file=folder,
        value="no label map" if folder.is_dir() else "no such folder",
    )


def classes_of(labels: torch.Tensor) -> torch.Tensor:
    """0 outside the brain, 1 to 7 for the groups of ``simulation.heads.GROUPS``, 8 for the rest of it."""
    table = torch.zeros(N_LABELS, dtype=torch.int64)
    table[1:FIRST_EXTRA_CEREBRAL] = CLASSES - 1
    for number, group in enumerate(GROUPS.values(), start=1):
        table[list(group)] = number
    return table[labels]


@dataclass(frozen=True)
class ClassedHeads:
    """Label maps, and how heads are simulated from them."""

    maps: list[torch.Tensor]
    sampler: HeadSampler

    def draw(self, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """One head: "image", "log_bias", "classes" and "pure" (96, 96, 96); mirrored from left to right half the time.

        "pure" are the classes of voxels of one tissue alone, and MIXED elsewhere in the brain: where blurring,
        without noise, field and texture, moves the log intensity by ``PURE`` or more.
        """

        def happens(share: float) -> bool:
            return bool(torch.rand((), generator=generator) < share)

        labels = self.maps[int(torch.randint(len(self.maps), (), generator=generator))]
        parameters = self.sampler.sample(generator)
        if happens(UNEVEN):
            factors = 1 + UNEVEN_SD * torch.randn(parameters.means.shape, generator=generator)
            parameters = replace(parameters, means=parameters.means * factors)
        head = simulate_head(labels, parameters, (SIZE,) * 3)
        image, classes, log_bias = head.image, classes_of(head.labels), head.log_bias
        own = parameters.means[head.labels]
        expected = blur(own, parameters.blur)
        if happens(THICK):
            axis = int(torch.randint(3, (), generator=generator))
            image, expected = thick_slices(image, axis), thick_slices(expected, axis)
        if happens(BLURRED):
            weights = (torch.rand(3, generator=generator) / 3).tolist()
            image, expected = blur(image, weights), blur(expected, weights)
        pure = pure_of(classes, expected, own)
        if happens(CUT):
            image, classes, pure = cut_view((image, classes, pure), generator)
        if happens(0.5):
            image, classes, pure, log_bias = (x.flip(0) for x in (image, classes, pure, log_bias))
        return {"image": image, "classes": classes, "pure": pure, "log_bias": log_bias}

    def small_field(self, generator: torch.Generator) -> torch.Tensor:
        """A weak log field, such as is left after a correction: (96, 96, 96), standard deviation up to ``LEFT``."""
        spans = [int(torch.randint(1, 5, (), generator=generator)) for _ in "ijk"]
        points = sample_log_bias(spans, LEFT * torch.rand((), generator=generator).item(), generator)
        return torch.from_numpy(LogBiasSpline.spanning(points.numpy(), (SIZE,) * 3).on_grid((SIZE,) * 3))

    def to_score(self) -> Iterator[tuple[str, SimulatedHead]]:
        """Heads to score on, always the same: of each label map one of each contrast, whole, with a smooth field."""
        for labels in self.maps:
            for contrast in CONTRASTS:
                generator = torch.Generator().manual_seed(0)
                sampler = replace(
                    self.sampler, contrasts=(contrast,), stripped=0, field_sd=(0.2, 0.2), field_spans=(1, 2)
                )
                yield contrast, simulate_head(labels, sampler.sample(generator), (SIZE,) * 3)

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "heads simulated from label maps",
            "simulator": asdict(self.sampler),
            "shares": {
                "labels of a group differ": UNEVEN,
                "thick slices": THICK,
                "field of view cut": CUT,
                "blurred again": BLURRED,
            },
            "pure": f"log intensity within {PURE} of the tissue's",
            "field left": f"standard deviation up to {LEFT}",
        }


def thick_slices(image: torch.Tensor, axis: int) -> torch.Tensor:
    """Pairs of slices averaged, and interpolated between them as resampling does."""
    moved = image.movedim(axis, 0)
    pairs = moved.reshape(moved.shape[0] // 2, 2, *moved.shape[1:]).mean(1)
    before, after = torch.cat([pairs[:1], pairs[:-1]]), torch.cat([pairs[1:], pairs[-1:]])
    slices = torch.stack([0.75 * pairs + 0.25 * before, 0.75 * pairs + 0.25 * after], 1)
    return slices.flatten(0, 1).movedim(0, axis).contiguous()


def pure_of(classes: torch.Tensor, expected: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Classes of voxels whose expected intensity is nearly their own tissue's; MIXED elsewhere in the brain."""
    ratio = expected.clamp(min=1e-6) / own.clamp(min=1e-6)
    return torch.where((classes == 0) | (ratio.log().abs() < PURE), classes, MIXED)


def cut_view(volumes: Sequence[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    """Volumes of one head of which the view ends, on one side, before the head does: 0 beyond."""
    axis = int(torch.randint(3, (), generator=generator))
    n = int(torch.randint(*CUT_VOXELS, (), generator=generator))
    at = 0 if torch.rand((), generator=generator) < 0.5 else SIZE - n
    cut = [volume.clone() for volume in volumes]
    for volume in cut:
        volume.narrow(axis, at, n).zero_()
    return cut


def open_classed(files: Sequence[Path], sampler: HeadSampler) -> ClassedHeads:
    """Read label maps, at 1 mm."""
    return ClassedHeads([load_label_map(file, voxel_size_mm=1.0) for file in files], sampler)
