"""Scans from a BIDS data set or a folder of images, with what is known of them: brain masks, tissues, true fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra.anatomy.brain import extract_brain
from biascorr_pydra.anatomy.tissue import segment_tissue
from biascorr_pydra.bids import ANATOMICAL_SUFFIXES, survey
from biascorr_pydra.errors import GridMismatchError, InvalidImageError, InvalidParameterError, SegmentationError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.images.files import SUFFIXES, sha256
from biascorr_pydra.images.head import detect_head

from .case import Case, Planned, extra_seed
from .choices import BRAINS

__all__ = ["Found", "case_from_image", "find_bids", "find_images", "pairs_from_images", "scans"]

COMPANIONS = ("mask", "dseg", "probseg", "biasfield")
#: B-spline spans per axis and standard deviation over the grid of the log field that is injected.
EXTRA = (2, 0.15)


@dataclass(frozen=True)
class Found:
    """An image and what belongs to it.

    Attributes
    ----------
    file : path
    name : its path inside the data set
    suffix : T1w, T2w ..., or "" where it is not known
    given : files by kind: 'mask', 'dseg', 'GM', 'WM', 'CSF', 'biasfield'
    """

    file: Path
    name: str
    suffix: str
    given: Mapping[str, Path] = field(default_factory=dict)


# --- finding


def find_bids(root: Path, derivatives: Path | None, select: Sequence[str] = ()) -> list[Found]:
    """The anatomical images of a BIDS data set, with masks, segmentations and true fields from a derivative one.

    A true field is ``<entities>_desc-<suffix>_biasfield`` in the place of the image's folder: an image (linear, of any
    scale), or a .json with LogBiasControlPoints, MeshFirst and MeshLast (a cubic B-spline in voxels).

    Raises
    ------
    BIDSError
    """
    jobs, _ = survey(root, derivatives=derivatives)
    images = []
    for job in jobs:
        given = dict(job.given)
        if derivatives is not None:
            folder = Path(derivatives) / Path(job.relative).parent
            given |= _field_named(folder / f"{job.stem}_desc-{job.suffix}_biasfield")
        images.append(Found(job.source, job.relative, job.suffix, given))
    return [item for item in images if _selected(item.name, select)]


def find_images(root: Path, select: Sequence[str] = (), contrast: str | None = None) -> list[Found]:
    """The NIfTI images of a folder and of those in it; NAME_mask, NAME_dseg, NAME_biasfield belong to image NAME.

    Parameters
    ----------
    root : folder
    select : patterns of paths inside it, such as ``*/study1_*``; all by default
    contrast : BIDS suffix of the images whose names do not end in one (in any case: _T1W is T1w)
    """
    files = sorted(path for suffix in SUFFIXES for path in root.rglob(f"*{suffix}"))
    images = []
    for file in files:
        stem = _stem(file)
        if stem.name.rsplit("_", 1)[-1] in COMPANIONS or not _selected(file.relative_to(root).as_posix(), select):
            continue
        given = {kind: path for kind in COMPANIONS[:2] if (path := _image_named(stem, kind))}
        given |= _field_named(stem.with_name(f"{stem.name}_biasfield"))
        images.append(Found(file, file.relative_to(root).as_posix(), _suffix(stem.name) or contrast or "", given))
    return images


def _stem(file: Path) -> Path:
    return file.with_name(file.name.removesuffix(".gz").removesuffix(".nii"))


def _suffix(name: str) -> str | None:
    last = name.rsplit("_", 1)[-1].lower()
    return next((suffix for suffix in ANATOMICAL_SUFFIXES if suffix.lower() == last), None)


def _selected(name: str, select: Sequence[str]) -> bool:
    return not select or any(Path(name).match(pattern) for pattern in select)


def _image_named(stem: Path, kind: str) -> Path | None:
    names = (stem.with_name(f"{stem.name}_{kind}{suffix}") for suffix in SUFFIXES)
    return next((path for path in names if path.is_file()), None)


def _field_named(stem: Path) -> dict[str, Path]:
    names = (stem.with_name(stem.name + suffix) for suffix in SUFFIXES)
    file = next((path for path in names if path.is_file()), None)
    if file is None and _has_control_points(stem.with_name(f"{stem.name}.json")):
        file = stem.with_name(f"{stem.name}.json")
    return {"biasfield": file} if file else {}


def _has_control_points(file: Path) -> bool:
    # The sidecar of a field that is not there is no field.
    return file.is_file() and "LogBiasControlPoints" in file.read_text(errors="replace")


# --- planning and loading


def scans(
    images: Sequence[Found], *, dataset: str, seed: int = 0, draws: int = 1, brain: str = "auto"
) -> Iterator[Planned]:
    """The cases of real scans: each is scored against its true field, or, where that is not known, as a pair.

    Parameters
    ----------
    images : from :func:`find_bids` or :func:`find_images`
    dataset : name for the table
    seed, draws : the further fields injected into each scan
    brain : one of :data:`BRAINS`, for scans without a mask; 'none' scores over the detected head
    """
    if brain not in BRAINS:
        raise InvalidParameterError("no such way to a brain mask", value=repr(brain), next_step=f"One of: {BRAINS}.")
    for item in images:
        hashes = {kind: sha256(path) for kind, path in {"image": item.file, **item.given}.items()}
        for draw in range(seed, seed + draws):
            facts = {
                "dataset": dataset,
                "scan": item.name.removesuffix(".gz").removesuffix(".nii"),
                "head": "as it is",
                "contrast": item.suffix or "unknown",
                "field": "true" if "biasfield" in item.given else "injected",
                "draw": draw,
            }
            made_from = {"sha256": hashes, "brain": brain, "extra": EXTRA, "seed": draw}
            yield Planned(facts, made_from, partial(_make, item, facts, draw, brain))


def pairs_from_images(
    files: Sequence[Path], *, suffix: str = "T1w", dataset: str = "images", seed: int = 0, brain: str = "auto"
) -> Iterator[Planned]:
    """The cases of single image files, all of one contrast, that nothing else is known of; see :func:`scans`."""
    images = [Found(Path(file), Path(file).name, suffix) for file in files]
    return scans(images, dataset=dataset, seed=seed, brain=brain)


def _make(item: Found, facts: Mapping[str, Any], draw: int, brain: str) -> Case:
    given, img = item.given, nifti.load(item.file)
    truth = _read_field(given["biasfield"], img) if "biasfield" in given else None
    return case_from_image(
        img,
        truth=truth,
        mask_file=given.get("mask"),
        tissues={k: v for k, v in given.items() if k in ("dseg", "GM", "WM", "CSF")},
        suffix=item.suffix,
        brain=brain,
        seed=extra_seed(item.name, draw),
        facts=facts,
    )


def case_from_image(
    img: nib.Nifti1Image,
    *,
    truth: np.ndarray | None = None,
    mask_file=None,
    tissues: Mapping[str, Path] | None = None,
    suffix: str = "",
    brain: str = "auto",
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
) -> Case:
    """A case from an image in memory.

    Parameters
    ----------
    img : NIfTI image, 3-D
    truth : array (I, J, K), optional
        The true log bias field, of any scale.
    mask_file : image or file, optional
        Brain mask; else ``brain`` (one of :data:`BRAINS`) says how it is made.
    tissues : files by kind, as for :func:`biascorr_pydra.anatomy.tissue.segment_tissue`, method 'given'
    suffix : BIDS suffix, which ``brain='auto'`` goes by
    seed : of the further field that is injected
    """
    import torch

    from biascorr_pydra.simulation.heads import sample_log_bias

    data, valid, _ = nifti.inspect(img)
    mask, mask_from = _brain(img, data, mask_file, brain, suffix)
    generator = torch.Generator().manual_seed(seed)
    extra = sample_log_bias((EXTRA[0],) * 3, EXTRA[1], generator).numpy()
    dseg = None
    if tissues and ("dseg" in tissues or len(tissues) == 3):
        tissue = segment_tissue(img, None, method="given", given=tissues)
        dseg = None if tissue is None else tissue.dseg
    return Case(
        data=data,
        valid=valid,
        affine=img.affine,
        voxel_size_mm=nifti.voxel_size_mm(img),
        brain=mask & valid,
        brain_from=mask_from,
        log_k=LogBiasSpline.spanning(extra, data.shape).on_grid(data.shape),
        log_bias=truth,
        dseg=dseg,
        facts=facts or {},
    )


def _brain(img, data: np.ndarray, mask_file, brain: str, suffix: str) -> tuple[np.ndarray, str]:
    if mask_file is not None:
        return nifti.load_mask(mask_file, img)[0], "given"
    if brain == "none":
        return detect_head(data), "head"
    if brain == "auto" and not suffix:
        raise SegmentationError(
            "a brain mask cannot be made where the contrast is not known",
            file=img.get_filename(),
            next_step="Add --contrast T1w (or what it is), or --brain template, or --brain none.",
        )
    brain_mask = extract_brain(img, method=brain, suffix=suffix, device="cpu")
    if brain_mask is None:
        raise InvalidParameterError("no such way to a brain mask", value=repr(brain), next_step=f"One of: {BRAINS}.")
    return brain_mask.mask, brain_mask.method


def _read_field(file: Path, img) -> np.ndarray:
    """A true field's logarithm on the grid of an image."""
    shape = nifti.inspect(img)[0].shape
    if file.suffix == ".json":
        return _spline(file).on_grid(shape, float).astype(np.float32)
    field_img = nifti.load(file)
    if not nifti.same_grid(field_img, img):
        raise GridMismatchError(
            "a true field must be on the image's grid", file=file, value=f"shapes {field_img.shape} and {img.shape}"
        )
    values = np.asarray(field_img.dataobj, np.float32).reshape(shape)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise InvalidImageError(
            "a true field is positive and finite everywhere (linear, not its logarithm)",
            file=file,
            value=f"minimum {np.nanmin(values):g}",
        )
    return np.log(values)


def _spline(file: Path) -> LogBiasSpline:
    try:
        record = json.loads(file.read_text())
        points = np.array(record["LogBiasControlPoints"], float)
        return LogBiasSpline(points, _three(record["MeshFirst"]), _three(record["MeshLast"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidImageError(
            "a field's .json has LogBiasControlPoints, MeshFirst and MeshLast", file=file, value=repr(error)
        ) from error


def _three(numbers: Sequence[Any]) -> tuple[float, float, float]:
    first, second, third = map(float, numbers)
    return first, second, third
