"""Steps between files that the faces share: brain mask, tissues and metrics of one image, into a folder.

Each function reads its inputs, calls the function behind it, and writes its results under fixed names into ``folder``,
replacing what an earlier run left there. The names on disk of a BIDS derivative are given elsewhere
(:mod:`biascorr_pydra.bids`).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.files import write_text
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.quality import measure

from .brain import extract_brain
from .tissue import segment_tissue

__all__ = ["MaskFiles", "TissueFiles", "extract_file", "measure_file", "segment_file", "strip_file"]


class MaskFiles(NamedTuple):
    """A brain mask (uint8, on the image's grid) and the record of how it was made (JSON)."""

    mask_file: Path
    record_file: Path


class TissueFiles(NamedTuple):
    """A segmentation (uint8: 1 GM, 2 WM, 3 CSF), probabilities (float32) where the method has them, and the record."""

    dseg_file: Path
    gm_file: Path | None
    wm_file: Path | None
    csf_file: Path | None
    record_file: Path


def extract_file(
    in_file: str | Path,
    folder: str | Path,
    *,
    method: str = "auto",
    suffix: str | None = None,
    mask_file: str | Path | None = None,
    device: str = "auto",
) -> MaskFiles:
    """Make a brain mask on an image's grid.

    Parameters
    ----------
    in_file : NIfTI file, 3-D
    folder : where mask.nii.gz and brain.json go
    method, suffix, mask_file, device
        See :func:`biascorr_pydra.anatomy.brain.extract_brain`.

    Raises
    ------
    BiasCorrError
        One of its leaves; nothing is written then.
    """
    started = time.perf_counter()
    img = nifti.load(in_file)
    nifti.inspect(img)  # an image that cannot be corrected fails here, with its own message
    brain = extract_brain(img, method=method, mask_file=mask_file, device=device, suffix=suffix)
    if brain is None:
        raise _makes_nothing("brain mask", method)
    out_file = Path(folder) / "mask.nii.gz"
    nifti.save(nifti.save_like(brain.mask.reshape(img.shape), img, dtype=np.uint8), out_file)
    record = {"Name": brain.method, **brain.record, "runtime_s": round(time.perf_counter() - started, 3)}
    return MaskFiles(out_file, _write(record, Path(folder) / "brain.json"))


def segment_file(
    in_file: str | Path,
    folder: str | Path,
    *,
    mask_file: str | Path | None = None,
    method: str = "atropos",
    suffix: str | None = None,
    given_dseg: str | Path | None = None,
    given_gm: str | Path | None = None,
    given_wm: str | Path | None = None,
    given_csf: str | Path | None = None,
) -> TissueFiles:
    """Segment grey matter, white matter and CSF.

    Parameters
    ----------
    in_file : NIfTI file, 3-D, best corrected for its bias field
    folder : where dseg.nii.gz, GM.nii.gz, WM.nii.gz, CSF.nii.gz and tissue.json go
    mask_file : brain mask
    method, suffix
        See :func:`biascorr_pydra.anatomy.tissue.segment_tissue`.
    given_dseg, given_gm, given_wm, given_csf : optional
        For method "given": a segmentation or probabilities made elsewhere.

    Raises
    ------
    BiasCorrError
        One of its leaves; nothing is written then.
    """
    started = time.perf_counter()
    folder = Path(folder)
    img = nifti.load(in_file)
    mask = None if mask_file is None else nifti.load_mask(mask_file, img)[0]
    given = {"dseg": given_dseg, "GM": given_gm, "WM": given_wm, "CSF": given_csf}
    given = {kind: file for kind, file in given.items() if file is not None}
    tissue = segment_tissue(img, mask, method=method, suffix=suffix, given=given)
    if tissue is None:
        raise _makes_nothing("segmentation", method)
    dseg_file = folder / "dseg.nii.gz"
    nifti.save(nifti.save_like(tissue.dseg.reshape(img.shape), img, dtype=np.uint8), dseg_file)
    files = {}
    for name, values in (tissue.probseg or {}).items():
        files[name] = folder / f"{name}.nii.gz"
        nifti.save(nifti.save_like(values.reshape(img.shape), img), files[name])
    record = {"Name": tissue.method, **tissue.record, "runtime_s": round(time.perf_counter() - started, 3)}
    record_file = _write(record, folder / "tissue.json")
    return TissueFiles(dseg_file, files.get("GM"), files.get("WM"), files.get("CSF"), record_file)


def measure_file(
    in_file: str | Path,
    out_file: str | Path,
    bias_file: str | Path,
    folder: str | Path,
    *,
    mask_file: str | Path | None = None,
    dseg_file: str | Path | None = None,
    no_dseg_reason: str = "no tissue segmentation was given",
) -> Path:
    """Measure an image before and after correction, and its field; returns the metrics' JSON file.

    Parameters
    ----------
    in_file, out_file : the acquired and the corrected image
    bias_file : the field that was divided out
    folder : where metrics.json goes
    mask_file : brain mask; the detected head by default
    dseg_file : 1 GM, 2 WM, 3 CSF
    no_dseg_reason : why there is no segmentation, if there is none

    Raises
    ------
    BiasCorrError
        One of its leaves; nothing is written then.
    """
    before = nifti.load(in_file)
    data, valid, _ = nifti.inspect(before)
    mask = nifti.load_mask(mask_file, before)[0] if mask_file else detect_head(data)
    dseg = None if dseg_file is None else nifti.load(dseg_file).get_fdata().reshape(data.shape)
    corrected = nifti.load(out_file).get_fdata(dtype="float32").reshape(data.shape)
    bias = nifti.load(bias_file).get_fdata(dtype="float32").reshape(data.shape)
    measured = measure(
        data, corrected, bias, mask & valid, dseg, nifti.voxel_size_mm(before), no_dseg_reason=no_dseg_reason
    )
    return _write(measured, Path(folder) / "metrics.json")


def strip_file(in_file: str | Path, mask_file: str | Path, folder: str | Path) -> Path:
    """Set everything outside a brain mask to 0; returns the image, brain.nii.gz (float32) in ``folder``.

    Of a 4-D series, in every frame.

    Raises
    ------
    BiasCorrError
        One of its leaves; nothing is written then.
    """
    img = nifti.load(in_file)
    if len(img.shape) == 4 and img.shape[3] > 1:
        nifti.check_real(img)
        data = np.asarray(img.dataobj, np.float32)
    else:
        data, _, _ = nifti.inspect(img)
    mask = nifti.load_mask(mask_file, img)[0]
    inside = mask.reshape(mask.shape + (1,) * (data.ndim - 3))
    out_file = Path(folder) / "brain.nii.gz"
    nifti.save(nifti.save_like(np.where(inside, data, 0).reshape(img.shape), img), out_file)
    return out_file


def _makes_nothing(what: str, method: str) -> InvalidParameterError:
    return InvalidParameterError(f"this step makes a {what}", value=f"method {method!r}", next_step="Leave it out.")


def _write(record: dict, path: Path) -> Path:
    text = json.dumps(record, indent=2, default=str)
    write_text(path, text)
    return path
