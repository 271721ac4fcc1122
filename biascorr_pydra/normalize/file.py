"""Normalize one scan on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra.correction.record import software_versions
from biascorr_pydra.errors import GridMismatchError, InvalidParameterError
from biascorr_pydra.images import files, nifti
from biascorr_pydra.metrics import DSEG_LABELS, normalized_histograms
from biascorr_pydra.resources import resolve_device

__all__ = ["Normalization", "normalize_file"]

NO_MASK = "No brain mask was given: the detected head was taken for the brain, which is right for stripped images only."


@dataclass(frozen=True)
class Normalization:
    """The record of one normalization, JSON-serialisable.

    Attributes
    ----------
    in_files, in_sha256 : of each modality
    method : name, weights_sha256, stride, patch, precision, scales (intensity that 1 stood for, each modality), device
    mask_file, n_mask_voxels : where the brain was
    volumes_ml : of each tissue
    histogram : counts "before" and "after" of the first modality's intensities in the brain, divided by their median,
        over "range", as the cohort's report compares sites by
    warnings, runtime_s, software
    """

    in_files: tuple[str, ...]
    in_sha256: tuple[str, ...]
    method: Mapping[str, Any]
    mask_file: str | None
    n_mask_voxels: int
    volumes_ml: Mapping[str, float]
    histogram: Mapping[str, Any]
    warnings: tuple[str, ...]
    runtime_s: float
    software: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def normalize_file(
    in_file: str | Path | Sequence[str | Path],
    out_file: str | Path | Sequence[str | Path],
    *,
    mask_file: str | Path | None = None,
    dseg_file: str | Path | None = None,
    probseg_files: Mapping[str, str | Path] | None = None,
    record_file: str | Path | None = None,
    speed: str = "paper",
    weights_file: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Normalization:
    """Normalize one scan, and segment its tissues.

    Parameters
    ----------
    in_file, out_file : .nii or .nii.gz, or one for each modality that the weights are for
        Modalities lie on one grid. Outputs are float32 from 0 to 1, 0 outside the brain, with their input's header.
    mask_file : optional
        The brain. Without one, the image is taken as stripped.
    dseg_file : optional
        Also write the segmentation (uint8: 1 GM, 2 WM, 3 CSF).
    probseg_files : optional
        Also write probabilities, by "CSF", "GM" and "WM".
    record_file : optional
        Also write the :class:`Normalization` as JSON.
    speed : "paper" (patches of 32 every 8 mm) or "fast" (every 16 mm)
    weights_file : optional
        Weights (.safetensors with their card) to use instead of the package's own.
    device : "auto", "cpu" or "cuda"
    overwrite : bool
        Replace outputs that exist.
    progress : callable, optional
        Of the share that is done.

    Raises
    ------
    BiasCorrError
        Before any output is written; what existed is untouched.
    """
    from biascorr_pydra.methods.deepnormalize.model import normalize_array  # torch, which `biascorr --help` can spare

    started = time.perf_counter()
    ins, outs = _listed(in_file), _listed(out_file)
    if len(ins) != len(outs):
        raise InvalidParameterError("one output for each input", value=f"{len(ins)} and {len(outs)}")
    probsegs = {tissue: Path(file) for tissue, file in (probseg_files or {}).items()}
    _check_outputs(
        ins, [*outs, *([dseg_file] if dseg_file else []), *probsegs.values()], record_file, mask_file, overwrite
    )
    imgs = [nifti.load(file) for file in ins]
    data = _inspected(imgs)
    mask, warnings = _mask(mask_file, imgs[0])
    device = resolve_device(device)
    normalized = normalize_array(
        data,
        imgs[0].affine,
        mask,
        speed=speed,
        weights_file=str(weights_file) if weights_file else None,
        device=device,
        progress=progress,
    )
    dseg = normalized.dseg()
    contents: dict[str | Path, bytes] = {
        file: _encoded(values, img, file) for img, values, file in zip(imgs, normalized.images, outs, strict=True)
    }
    if dseg_file:
        contents[Path(dseg_file)] = _encoded(dseg, imgs[0], dseg_file, dtype=np.uint8)
    for tissue, file in probsegs.items():
        contents[file] = _encoded(normalized.probabilities[tissue] * normalized.mask, imgs[0], file)
    histogram, undefined = normalized_histograms({"before": data[0], "after": normalized.images[0]}, normalized.mask)
    voxel_ml = abs(float(np.linalg.det(imgs[0].affine[:3, :3]))) / 1000
    record = Normalization(
        in_files=tuple(map(str, ins)),
        in_sha256=tuple(files.sha256(file) for file in ins),
        method={"name": "deepnormalize", **normalized.record, "device": device},
        mask_file=str(mask_file) if mask_file else None,
        n_mask_voxels=int(normalized.mask.sum()),
        volumes_ml={tissue: round(float((dseg == n).sum()) * voxel_ml, 1) for tissue, n in DSEG_LABELS.items()},
        histogram=histogram,
        warnings=(*warnings, *(f"No histogram {name}: {reason}." for name, reason in undefined.items())),
        runtime_s=round(time.perf_counter() - started, 3),
        software=software_versions(),
    )
    if record_file:
        contents[Path(record_file)] = json.dumps(record.as_dict(), indent=2).encode()
    files.write_all(contents)
    return record


def _listed(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


def _check_outputs(
    ins: Sequence[Path],
    images: Sequence[str | Path],
    record_file: str | Path | None,
    mask_file: str | Path | None,
    overwrite: bool,
) -> None:
    for file in images:
        files.check_output(file, inputs=(*ins, mask_file), overwrite=overwrite)
    if record_file:
        files.check_output(record_file, inputs=(*ins, mask_file), overwrite=overwrite, suffixes=(".json",))


def _mask(mask_file: str | Path | None, img: nib.Nifti1Image) -> tuple[np.ndarray | None, list[str]]:
    """The brain mask on the image's grid, and what there is to say of it."""
    if mask_file is None:
        return None, [NO_MASK]
    mask, resampled = nifti.load_mask(mask_file, img)
    return mask, ["The mask was on another grid and was resampled to the image's."] if resampled else []


def _encoded(values: np.ndarray, like: nib.Nifti1Image, file: str | Path, dtype: type = np.float32) -> bytes:
    return nifti.encode(nifti.save_like(values.reshape(like.shape), like, dtype=dtype), file)


def _inspected(imgs: Sequence[nib.Nifti1Image]) -> list[np.ndarray]:
    data = []
    for img in imgs:
        if not nifti.same_grid(img, imgs[0]):
            raise GridMismatchError(
                "the modalities of a scan are on one grid",
                file=img.get_filename(),
                value=f"shapes {img.shape} and {imgs[0].shape}",
                next_step="Resample it to the first.",
            )
        data.append(nifti.inspect(img)[0])
    return data
