"""What kind of data a folder holds, and the cases that come of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biascorr_pydra.bids import DATASET_DESCRIPTION
from biascorr_pydra.errors import BIDSError, InvalidParameterError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.files import SUFFIXES

from .case import Planned
from .choices import HEADS
from .scans import find_bids, find_images, scans

__all__ = ["Sources", "kind_of", "plan_cases"]

#: A label map has few different integers, an image many.
LABELS = (3, 100)


@dataclass(frozen=True)
class Sources:
    """Which data are measured on, and how cases are made of them.

    Attributes
    ----------
    data : folders, each a BIDS data set, a folder of label maps or a folder of images
    derivatives : BIDS derivative data sets, each of the data set at the same position; one may serve several
    kind : one of KINDS
    select : patterns of paths inside the folders
    contrast : BIDS suffix of images whose names do not tell
    heads : of simulated heads, names in HEADS
    brain : how a brain mask is made where none is given
    draws : heads, or injected fields, of each kind
    seed : of all random numbers
    limit : at most so many cases of each data set, spread over its kinds
    """

    data: Sequence[Path]
    derivatives: Sequence[Path] = ()
    kind: str = "auto"
    select: Sequence[str] = ()
    contrast: str | None = None
    heads: Sequence[str] = HEADS
    brain: str = "auto"
    draws: int = 1
    seed: int = 0
    limit: int | None = None


def kind_of(root: Path, select: Sequence[str] = ()) -> str:
    """'bids', 'labels' or 'images': a dataset_description.json, few different integers in the first image, or neither.

    Raises
    ------
    InvalidParameterError
        There is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise InvalidParameterError("no such folder", value=str(root), next_step="Check --data.")
    if (root / DATASET_DESCRIPTION).is_file():
        return "bids"
    return "labels" if _is_label_map(_images(root, select)[0]) else "images"


def _images(root: Path, select: Sequence[str]) -> list[Path]:
    files = [item.file for item in find_images(root, select)]
    if not files:
        asked = f", matching {', '.join(select)}" if select else ""
        raise InvalidParameterError(
            f"no NIfTI image ({' or '.join(SUFFIXES)}) in the folder{asked}",
            value=str(root),
            next_step="Check --data and --select.",
        )
    return files


def _is_label_map(file: Path) -> bool:
    values = np.unique(np.asarray(nifti.load(file).dataobj))
    fewest, most = LABELS
    return fewest <= values.size <= most and bool((values == np.round(values)).all()) and values[0] >= 0


def plan_cases(sources: Sources) -> Iterator[Planned]:
    """All cases of all folders, in order.

    Raises
    ------
    InvalidParameterError, BIDSError
        A folder that holds nothing to measure on, or two folders of one name.
    """
    names = _names(sources.data)
    derivatives = _derivatives(sources)
    for root, name, derivative in zip(sources.data, names, derivatives, strict=True):
        planned = list(_plan(sources, Path(root), name, derivative))
        if not planned:
            raise BIDSError("nothing to measure on", file=root, next_step="Check --select and --heads.")
        yield from planned if sources.limit is None else _spread(planned, sources.limit)


def _plan(sources: Sources, root: Path, name: str, derivatives: Path | None) -> Iterator[Planned]:
    own_kind = kind_of(root, sources.select)  # also where another is asked for: it refuses what is no data
    kind = own_kind if sources.kind == "auto" else sources.kind
    if kind == "labels":
        from .heads import heads_from_labels

        stripped = [head == "stripped" for head in sources.heads]
        files = _images(root, sources.select)
        yield from heads_from_labels(files, stripped=stripped, dataset=name, seed=sources.seed, draws=sources.draws)
        return
    if kind == "bids":
        images = find_bids(root, derivatives, sources.select)
    else:
        images = find_images(root, sources.select, sources.contrast)
    yield from scans(images, dataset=name, seed=sources.seed, draws=sources.draws, brain=sources.brain)


def _spread(planned: list[Planned], limit: int) -> list[Planned]:
    """Evenly spaced cases, so that few of them are still of every kind as far as that goes."""
    if limit >= len(planned):
        return planned
    return [planned[int(i)] for i in np.unique(np.linspace(0, len(planned) - 1, limit).round())]


def _names(data: Sequence[Path]) -> list[str]:
    names = [Path(root).resolve().name for root in data]
    if len(set(names)) < len(names):
        raise InvalidParameterError(
            "each --data folder has a name of its own",
            value=", ".join(names),
            next_step="Rename one, or run them apart.",
        )
    return names


def _derivatives(sources: Sources) -> list[Path | None]:
    given = [Path(folder) for folder in sources.derivatives]
    if len(given) > len(sources.data):
        raise InvalidParameterError("no more --derivatives than --data", value=len(given))
    for folder in given:
        if not folder.is_dir():
            raise InvalidParameterError("no such folder", value=str(folder), next_step="Check --derivatives.")
    return [*given, *[None] * (len(sources.data) - len(given))]
