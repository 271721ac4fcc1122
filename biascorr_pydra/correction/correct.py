"""Correct one image, in memory or on disk: the function behind every face of the package.

acquired = true x bias (+ noise). A corrector estimates the log bias, usually at low resolution; it is evaluated on the
native grid, scaled to mean 1 over the mask, judged (:mod:`biascorr_pydra.correction.decide`), and divided out. The
corrected image is never a resampled image.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from biascorr_pydra.bids.signs import metadata_beside, signs_of_correction
from biascorr_pydra.errors import (
    BiasCorrError,
    GridMismatchError,
    InvalidImageError,
    InvalidMaskError,
    InvalidParameterError,
)
from biascorr_pydra.images import files, nifti
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.methods import DEFAULT_METHOD, get_corrector
from biascorr_pydra.methods.corrector import Corrector, Scan
from biascorr_pydra.methods.identity import weights_sha256
from biascorr_pydra.methods.spec import NO_FALLBACK
from biascorr_pydra.resources import resolve_device

from .apply import apply_file
from .decide import GateOptions, decide_field, parse_fallback
from .estimate import estimate_ahead, scan_on_grid
from .record import CorrectedImage, Correction, software_versions, summarize

__all__ = [
    "CorrectedImage",
    "Correction",
    "apply_file",
    "correct_file",
    "correct_image",
    "estimate_together",
]


def correct_image(
    img: nib.Nifti1Image,
    *,
    method: str = DEFAULT_METHOD,
    mask: nib.spatialimages.SpatialImage | str | Path | None = None,
    weight: nib.spatialimages.SpatialImage | str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    average_frames: bool = False,
    gate: bool = True,
    fallback: str = NO_FALLBACK,
    check_response: bool = False,
    uncertainty: bool = False,
    metadata: Mapping[str, Any] | None = None,
    progress: Callable | None = None,
) -> CorrectedImage:
    """Estimate and remove the bias field of one image in memory.

    Parameters
    ----------
    img : NIfTI image, 3-D
    method : name from :func:`biascorr_pydra.methods.method_names`
    mask : image or file, optional
        Where to estimate the field, voxels above 0. Resampled if it is on another grid over the same place.
    weight : image or file, optional
        How much each voxel counts, 0 or more, on the image's grid; for the methods that take one.
    device : "auto", "cpu" or "cuda"
    seed : int
        For methods that draw random numbers.
    preset, options
        A named set of the method's parameters, and single ones on top of it.
    average_frames : bool
        Take a 4-D series: estimate one field on the mean of its frames and divide every frame by it.
    gate : bool
        Judge the field before it is divided out; see :mod:`biascorr_pydra.quality`. Where it is negligible or rejected,
        the image is passed on as it is, with a field of exactly 1.
    fallback : str
        Method, as METHOD or METHOD:PRESET, whose field takes the place of a rejected one, or of the method's own if it
        refuses the image, provided it is accepted itself.
    check_response : bool
        Also judge by whether the method sees a further known field; takes as long again as the estimate.
    uncertainty : bool
        Also return how far the fields of the mirror images are apart, and judge by it; three estimates more.
    metadata : mapping, optional
        What the image's BIDS sidecar says; signs of an earlier correction are looked for in it.
    progress : callable, optional
        For methods that report it; n4 calls ``progress(0, level, facts)`` when a level ends, see
        :meth:`biascorr_pydra.methods.n4.corrector.N4.estimate_batch`.

    Raises
    ------
    BiasCorrError
        One of its leaves, naming the rule, the file, the value and the next step.
    """
    started = time.perf_counter()
    device = resolve_device(device)
    corrector = get_corrector(method).from_options(preset, **(options or {}))
    frames = _frames(img) if average_frames else None
    untried = [one for one in (corrector, parse_fallback(fallback, corrector)) if one and not one.takes_series]
    if frames is not None and untried:
        raise InvalidParameterError(
            f"method {untried[0].name!r} has not been tried on the mean of a series",
            value=f"average_frames, {frames.shape[3]} frames",
            next_step="Use method n4 for series.",
        )
    data, valid, intensities = nifti.inspect(img if frames is None else _mean_frame(frames, img))
    scan, resampled = _scan(img, data, valid, mask, weight, corrector)
    mask_array, warnings = scan.mask, intensities.warnings()
    if resampled:
        warnings.append("The mask was on another grid and was resampled to the image's (nearest neighbour).")
    scale_mask = (detect_head(data) if mask_array is None else mask_array) & valid
    if not scale_mask.any():
        raise InvalidImageError("the mask holds no voxel with a finite value", file=img.get_filename() or "image")
    signs = signs_of_correction(metadata or {})
    inspected = time.perf_counter()
    decision = decide_field(
        corrector,
        img.affine,
        scan,
        scale_mask,
        GateOptions(gate, fallback, check_response, uncertainty),
        device=device,
        seed=seed,
        signs=signs,
        name=str(img.get_filename() or "image"),
        telling={"progress": progress} if progress and corrector.reports_progress else {},
    )
    warnings += [*signs.intensity, *decision.warnings]
    applying = time.perf_counter()
    bias = decision.bias
    if frames is None:
        corrected = data / bias
        corrected[~valid] = 0
        if decision.corrector is not None:
            corrected = decision.corrector.finish(corrected, mask_array, decision.applied)
    else:
        corrected = np.nan_to_num(frames / bias[..., None], nan=0, posinf=0, neginf=0)
        warnings.append(f"One field, estimated on the mean of {frames.shape[3]} frames, was divided out of each.")
    inside = bias[scale_mask]
    correction = Correction(
        method=corrector.name,
        method_version=corrector.version,
        preset=preset or next(iter(corrector.presets)),
        parameters=corrector.parameters(),
        weights_sha256=weights_sha256(corrector),
        device=device if corrector.uses_device else "cpu",
        seed=seed,
        in_file=img.get_filename() and str(img.get_filename()),
        in_sha256=None,
        mask_file=str(mask) if isinstance(mask, str | Path) else None,
        mask_sha256=files.sha256(mask) if isinstance(mask, str | Path) else None,
        weight_file=str(weight) if isinstance(weight, str | Path) else None,
        weight_sha256=files.sha256(weight) if isinstance(weight, str | Path) else None,
        mask_resampled=resampled,
        scaled_over="detected head" if mask_array is None else "given mask",
        n_mask_voxels=int(scale_mask.sum()),
        voxel_size_mm=nifti.voxel_size_mm(img),
        intensities=intensities.as_dict(),
        field=summarize(inside),
        estimate=decision.estimate,
        gate=decision.gate,
        warnings=tuple(warnings),
        runtime_s={
            "inspect": round(inspected - started, 4),
            **{step: round(seconds, 4) for step, seconds in decision.seconds.items()},
            "apply": round(time.perf_counter() - applying, 4),
        },
        software=software_versions(),
    )
    shape = img.shape
    one = shape if frames is None else shape[:3]
    maps = [None if a is None else nifti.save_like(a.reshape(one), img) for a in (bias, decision.uncertainty)]
    return CorrectedImage(nifti.save_like(corrected.reshape(shape), img), maps[0], correction, maps[1])


def correct_file(
    in_file: str | Path,
    out_file: str | Path,
    *,
    method: str = DEFAULT_METHOD,
    mask_file: str | Path | None = None,
    weight_file: str | Path | None = None,
    bias_file: str | Path | None = None,
    record_file: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    average_frames: bool = False,
    gate: bool = True,
    fallback: str = NO_FALLBACK,
    check_response: bool = False,
    uncertainty_file: str | Path | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: Callable | None = None,
) -> Correction:
    """Correct one NIfTI file.

    Parameters
    ----------
    in_file, out_file : .nii or .nii.gz
        The output is float32 with the input's affine, qform, sform, their codes, units and description.
    mask_file : optional
        Where to estimate the field.
    weight_file : optional
        How much each voxel counts.
    bias_file : optional
        Also write the bias field (dimensionless, mean 1 over the mask or the detected head).
    record_file : optional
        Also write the :class:`Correction` as JSON.
    uncertainty_file : optional
        Also write how far the fields of the mirror images are apart, as a standard deviation of the log field
        (:func:`biascorr_pydra.correction.estimate.disagreement_of_flips`), and judge by it; three estimates more.
    metadata : mapping, optional
        What the image's BIDS sidecar says; by default the JSON file beside ``in_file``, if there is one.
    overwrite : bool
        Replace outputs that exist.
    method, device, seed, preset, options, average_frames, gate, fallback, check_response, progress
        See :func:`correct_image`.

    Raises
    ------
    BiasCorrError
        Before any output is written; what existed is untouched.
    """
    started = time.perf_counter()
    _check_outputs((out_file, bias_file, uncertainty_file), record_file, (in_file, mask_file, weight_file), overwrite)
    img = nifti.load(in_file)
    metadata, unreadable = metadata_beside(in_file) if metadata is None else (metadata, [])
    read_s = time.perf_counter() - started
    result = correct_image(
        img,
        method=method,
        mask=mask_file,
        weight=weight_file,
        device=device,
        seed=seed,
        preset=preset,
        options=options,
        average_frames=average_frames,
        gate=gate,
        fallback=fallback,
        check_response=check_response,
        uncertainty=uncertainty_file is not None,
        metadata=metadata,
        progress=progress,
    )
    encoding = time.perf_counter()
    contents = {out_file: nifti.encode(result.corrected, out_file)}
    if bias_file is not None:
        contents[bias_file] = nifti.encode(result.bias, bias_file)
    if uncertainty_file is not None:
        contents[uncertainty_file] = nifti.encode(result.uncertainty, uncertainty_file)
    encode_s = time.perf_counter() - encoding
    record = result.correction.as_dict() | {"in_sha256": files.sha256(in_file)}
    record["warnings"] = (*record["warnings"], *unreadable)
    record["runtime_s"] = {"read": round(read_s, 4), **record["runtime_s"], "encode": round(encode_s, 4)}
    if record_file is not None:
        contents[record_file] = json.dumps(record, indent=2).encode()
    files.write_all(contents)
    return Correction(**record)


def estimate_together(requests: Sequence[Mapping[str, Any]]) -> None:
    """Estimate the fields of several files at once, for a :func:`correct_file` of each that follows in this process.

    Parameters
    ----------
    requests : arguments of :func:`correct_file` by name; only ``in_file`` and what the estimate depends on are read

    Worth it on a GPU. A file that cannot be read or corrected is left out: its own correction says why.
    """
    groups: dict[tuple, list[Scan]] = {}
    for request in requests:
        try:
            corrector = get_corrector(request["method"]).from_options(request.get("preset"), **request["options"] or {})
            img = nifti.load(request["in_file"])
            data, valid, _ = nifti.inspect(img)
            scan, _ = _scan(img, data, valid, request.get("mask_file"), request.get("weight_file"), corrector)
            how = corrector, resolve_device(request["device"]), request["seed"]
            groups.setdefault(how, []).append(scan_on_grid(corrector, img.affine, scan))
        except BiasCorrError:
            continue
    for (corrector, device, seed), scans in groups.items():
        try:
            estimate_ahead(corrector, scans, device=device, seed=seed)
        except BiasCorrError:
            continue  # one of them; each has its turn


def _check_outputs(images, record_file, inputs, overwrite: bool) -> None:
    outputs = [file for file in (*images, record_file) if file is not None]
    if len({Path(file).resolve() for file in outputs}) < len(outputs):
        raise InvalidParameterError("every output needs a name of its own", value=", ".join(map(str, outputs)))
    for file in images:
        if file is not None:
            files.check_output(file, inputs=inputs, overwrite=overwrite)
    if record_file is not None:
        files.check_output(record_file, inputs=inputs, overwrite=overwrite, suffixes=(".json",))


# --- steps


def _scan(img, data, valid, mask, weight, corrector: Corrector) -> tuple[Scan, bool]:
    """What the corrector is given, on the image's grid, and whether the mask had to be resampled to it."""
    mask_array, resampled = (None, False) if mask is None else nifti.load_mask(mask, img)
    scan = Scan(data, valid, mask_array, nifti.voxel_size_mm(img), _load_weight(weight, img, corrector))
    return scan, resampled


def _load_weight(weight, img, corrector: Corrector) -> np.ndarray | None:
    """The weight image's values, if there is one, on the image's grid."""
    if weight is None:
        return None
    if not corrector.uses_weight:
        raise InvalidParameterError(
            f"method {corrector.name!r} takes no weight image", next_step="Leave it out, or use n4 or ants-n4."
        )
    weight_img = weight if isinstance(weight, nib.spatialimages.SpatialImage) else nifti.load(weight)
    name = weight_img.get_filename() or "weight image"
    if not nifti.same_grid(weight_img, img):
        raise GridMismatchError(
            "a weight image must be on the image's grid",
            file=name,
            value=f"shapes {weight_img.shape} and {img.shape}",
            next_step="Resample it to the image.",
        )
    values = np.asarray(weight_img.dataobj, np.float32).reshape(img.shape[:3])
    if not (values > 0).any():
        raise InvalidMaskError("the weight image is empty", file=name, value="no voxel above 0")
    return values


def _frames(img) -> np.ndarray | None:
    """A 4-D series' values (I, J, K, frames), or None for an image that has one frame."""
    if len(img.shape) != 4 or img.shape[3] == 1:
        return None
    nifti.check_real(img)
    return np.asarray(img.dataobj, np.float32)


def _mean_frame(frames: np.ndarray, img) -> nib.Nifti1Image:
    mean = nifti.save_like(frames.mean(axis=3), img)
    mean.set_filename(img.get_filename() or "series")
    return mean
