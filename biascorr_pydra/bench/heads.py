"""Heads simulated from label maps, with no field, a smooth and a rough one: the truth is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.images.files import sha256
from biascorr_pydra.metrics import DSEG_LABELS
from biascorr_pydra.simulation.heads import (
    GROUPS,
    HeadParameters,
    HeadSampler,
    load_label_map,
    sample_log_bias,
    simulate_head,
)

from .case import Case, Planned

__all__ = ["CONTRASTS", "EXTRA", "FIELDS", "VOXEL_MM", "heads_from_labels"]

CONTRASTS = ("T1w", "T2w", "FLAIR")
#: Name -> B-spline spans per axis over the image, and standard deviation of the log field over it.
FIELDS = {"none": (1, 0.0), "smooth": (1, 0.2), "rough": (4, 0.15)}
#: The same of the further field k that is injected to see the response.
EXTRA = (2, 0.15)
VOXEL_MM = 2.0
SHAPE = (100, 100, 100)
NOISE = (0.01, 0.03)
MAX_ELASTIC = 0.02
# Only what is one tissue without doubt: the deep nuclei are neither cortical gray matter nor white matter.
TISSUES = {"GM": GROUPS["grey matter"], "WM": GROUPS["white matter"], "CSF": GROUPS["csf"]}


def heads_from_labels(
    files: Sequence[Path],
    *,
    seed: int = 0,
    draws: int = 1,
    stripped: Sequence[bool] = (False,),
    contrasts: Sequence[str] = CONTRASTS,
    fields: Sequence[str] = tuple(FIELDS),
    shape: tuple[int, int, int] = SHAPE,
    dataset: str = "labels",
) -> Iterator[Planned]:
    """The heads to be made from label maps: of each map and draw, every contrast with every field.

    Parameters
    ----------
    files : label maps as :func:`biascorr_pydra.simulation.heads.load_label_map` reads them
    seed, draws : heads are drawn with the seeds ``seed`` to ``seed + draws - 1``
    stripped : with all tissue outside the brain (False), without it (True), or both
    contrasts, fields : names in :data:`CONTRASTS` and :data:`FIELDS` that are wanted
        What is left out is drawn all the same, so that the others stay what they are.
    shape : of the simulated grid
        The voxels count as 2 mm, whatever the shape.
    dataset : name for the table
    """
    for file in files:
        digest = sha256(file)
        for bare in stripped:
            for draw in range(seed, seed + draws):
                for contrast, extra, field, parameters in _draw(draw, bare):
                    if contrast not in contrasts or field not in fields:
                        continue
                    facts = {
                        "dataset": dataset,
                        "scan": file.name.split(".")[0],
                        "head": "stripped" if bare else "whole",
                        "contrast": contrast,
                        "field": field,
                        "draw": draw,
                    }
                    made_from = {
                        "labels_sha256": digest,
                        "shape": shape,
                        "noise": NOISE,
                        "elastic": MAX_ELASTIC,
                        "fields": FIELDS[field],
                        "extra": EXTRA,
                    }
                    yield Planned(facts, made_from, partial(_make, file, digest, parameters, extra, shape, facts))


def _draw(seed: int, stripped: bool) -> Iterator[tuple[str, np.ndarray, str, HeadParameters]]:
    """Contrast, control points of the further field, name of the field, and parameters of each head."""
    generator = torch.Generator().manual_seed(seed)
    for contrast in CONTRASTS:
        sampler = HeadSampler(contrasts=(contrast,), stripped=float(stripped), noise=NOISE, max_elastic=MAX_ELASTIC)
        parameters = sampler.sample(generator)
        extra = sample_log_bias((EXTRA[0],) * 3, EXTRA[1], generator).numpy()
        for field, (spans, sd) in FIELDS.items():
            log_bias = sample_log_bias((spans,) * 3, sd, generator)
            yield contrast, extra, field, dataclasses.replace(parameters, log_bias=log_bias)


@lru_cache(maxsize=1)
def _labels(file: Path, sha256: str) -> torch.Tensor:
    # The hash is part of the key so that a file that changes is read again.
    return load_label_map(file, voxel_size_mm=1.0)


def _make(file: Path, digest: str, parameters: HeadParameters, extra: np.ndarray, shape, facts) -> Case:
    head = simulate_head(_labels(file, digest), parameters, shape)
    data = head.image.numpy()
    labels = head.labels.numpy()
    dseg = np.zeros(shape, np.int8)
    for tissue, numbers in TISSUES.items():
        dseg[np.isin(labels, numbers)] = DSEG_LABELS[tissue]
    return Case(
        data=data,
        valid=np.ones(shape, bool),
        affine=np.diag([VOXEL_MM] * 3 + [1.0]),
        voxel_size_mm=(VOXEL_MM,) * 3,
        brain=head.brain.numpy(),
        brain_from="truth",
        log_k=LogBiasSpline.spanning(extra, shape).on_grid(shape),
        log_bias=head.log_bias.numpy(),
        dseg=dseg,
        facts=facts,
    )
