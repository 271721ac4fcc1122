"""BIDS out: the one owner of output names, sidecars and what a derivative data set's root says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from biascorr_pydra import __version__
from biascorr_pydra.errors import OutputError, OutputExistsError
from biascorr_pydra.images.files import write_json, write_text

from .jobs import DATASET_DESCRIPTION, TISSUES, Job

__all__ = [
    "GROUP_FILES",
    "NOT_CORRECTED",
    "STATUS_COLUMNS",
    "bids_uri",
    "check_ours",
    "make_folder",
    "output_paths",
    "prepare_dataset",
    "sidecar",
    "sidecars",
]

# in the output folder, beside the methods' data sets; the status table comes first, both here and in time
GROUP_FILES = ("status.tsv", "metrics.tsv", "metrics.json", "report.html", "reports")
STATUS_COLUMNS = ("scan", "method", "state", "reason")
BIDS_VERSION = "1.11.0"
#: "applied" in the gate of a correction's record where no field was divided out; else a method is named there.
NOT_CORRECTED = "none"
RAW = "raw"
# BIDS common labels as fMRIPrep writes them
DSEG_LABELS = "index\tname\tabbreviation\n1\tGray Matter\tGM\n2\tWhite Matter\tWM\n3\tCerebrospinal Fluid\tCSF\n"


def output_paths(job: Job, dataset: str | Path) -> dict[str, Path]:
    """Where each output of a scan goes, by kind, inside one derivative data set."""
    folder = Path(dataset) / Path(job.relative).parent
    space = "" if job.suffix == "T1w" else f"_space-{job.suffix}"
    names = {
        "corrected": f"_desc-preproc_{job.suffix}.nii.gz",
        "bias": f"_desc-{job.suffix}_biasfield.nii.gz",
        "mask": f"{space}_desc-brain_mask.nii.gz",
        "dseg": f"{space}_dseg.nii.gz",
        **{tissue: f"{space}_label-{tissue}_probseg.nii.gz" for tissue in TISSUES},
        "metrics": f"_desc-{job.suffix}_metrics.json",
    }
    return {kind: folder / (job.stem + ending) for kind, ending in names.items()}


def sidecar(path: Path) -> Path:
    """The JSON file beside an image."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def bids_uri(job: Job, dataset: str = RAW) -> str:
    """The scan as a BIDS URI."""
    return f"bids:{dataset}:{job.relative}"


def prepare_dataset(
    dataset: str | Path,
    bids_dir: str | Path,
    label: str,
    description: str,
    *,
    overwrite: bool = False,
    what: str = "Bias correction",
    readme: str | None = None,
) -> None:
    """Make a derivative data set's root: dataset_description.json, .bidsignore, dseg.tsv, README.

    ``what`` was done by ``label``, for the name; ``readme`` is said instead of what a correction's data set is.

    Raises
    ------
    OutputExistsError
        The folder holds something that this package did not write.
    """
    dataset = Path(dataset)
    check_ours(dataset, overwrite=overwrite)
    make_folder(dataset)
    raw = Path(bids_dir).resolve()
    link = Path(os.path.relpath(raw, dataset.resolve())).as_posix()
    about = raw / DATASET_DESCRIPTION
    source = json.loads(about.read_text()) if about.is_file() else {}  # undescribed, if the run allows it
    write_json(
        dataset / DATASET_DESCRIPTION,
        {
            "Name": f"{what} by {label} of {source.get('Name', raw.name)}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": source.get("License", "n/a"),
            "GeneratedBy": [{"Name": "biascorr_pydra", "Version": __version__, "Description": description}],
            "SourceDatasets": [{"URL": source["DatasetDOI"]} if source.get("DatasetDOI") else {"URL": link}],
            "DatasetLinks": {RAW: link},
        },
    )
    _write_text(dataset / ".bidsignore", "*_biasfield.*\n*_metrics.json\n*_normalization.json\n")
    _write_text(dataset / "dseg.tsv", DSEG_LABELS)
    _write_text(
        dataset / "README",
        readme
        or f"Images corrected for the bias field by {label}, with the fields, masks and segmentations.\n"
        "corrected = acquired / biasfield; the field has mean 1 over the mask.\n",
    )


def check_ours(dataset: Path, *, overwrite: bool = False) -> None:
    """Refuse a method's folder, or group files beside it, that hold something this package did not write.

    Raises
    ------
    OutputExistsError
    """
    if overwrite:
        return
    advice = "Choose another --out-dir, or add --overwrite."
    if dataset.exists() and not dataset.is_dir():
        raise OutputExistsError("a file is where the method's folder belongs", file=dataset, next_step=advice)
    if dataset.is_dir() and any(dataset.iterdir()) and not _ours(dataset):
        raise OutputExistsError(
            "the folder is not empty and was not written by biascorr_pydra", file=dataset, next_step=advice
        )
    existing = [dataset.parent / name for name in GROUP_FILES if (dataset.parent / name).exists()]
    if existing and not _our_status(dataset.parent / GROUP_FILES[0]):
        raise OutputExistsError("the file was not written by biascorr_pydra", file=existing[0], next_step=advice)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents.

    Raises
    ------
    OutputError
        Naming the folder and the system's reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            "the folder cannot be made", file=folder, value=error.strerror, next_step="Check space and permissions."
        ) from error


def _our_status(path: Path) -> bool:
    try:
        return path.read_text().startswith("\t".join(STATUS_COLUMNS) + "\n")
    except (OSError, ValueError):
        return False


def _ours(dataset: Path) -> bool:
    try:
        made = json.loads((dataset / DATASET_DESCRIPTION).read_text()).get("GeneratedBy", [])
        return any(entry.get("Name") == "biascorr_pydra" for entry in made)
    except (OSError, ValueError, AttributeError):
        return False


def _write_text(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)


def _description(gate: Mapping) -> str:
    if gate["applied"] == NOT_CORRECTED:
        return f"Acquired image as it is: its bias field was {gate['verdict']}"
    return "Acquired image divided by the bias field"


def sidecars(job: Job, correction: Mapping, brain: Mapping | None, tissue: Mapping | None) -> dict[str, dict]:
    """JSON sidecar of each image output, by kind, from the records of the steps that made them."""
    sources = {"Sources": [bids_uri(job)]}
    method = {
        "SourceSHA256": correction["in_sha256"],
        "Method": {
            "Name": correction["method"],
            "Version": correction["method_version"],
            "Preset": correction["preset"],
            "Parameters": correction["parameters"],
            "WeightsSHA256": correction["weights_sha256"],
            "Device": correction["device"],
            "Seed": correction["seed"],
        },
        "FieldScaledOver": correction["scaled_over"],
        "MaskMethod": brain["Name"] if brain else None,
        "MaskResampled": correction["mask_resampled"] or bool(brain and brain.get("resampled")),
        "Intensities": correction["intensities"],
        "FieldSummary": correction["field"],
        "EstimateRecord": correction["estimate"],
        "Gate": correction["gate"],
        "Warnings": list(dict.fromkeys([*job.warnings, *correction["warnings"], *(brain or {}).get("warnings", [])])),
        "Software": correction["software"],
    }
    made = {
        "corrected": {
            "Description": _description(correction["gate"]),
            **sources,
            "SkullStripped": False,
            **method,
        },
        "bias": {
            "Description": "Bias field: acquired = corrected x field, mean 1 over the mask",
            "Units": "dimensionless",
            **sources,
            **method,
        },
    }
    # BIDS wants to know what a space that is not a template's refers to.
    place = sources if job.suffix == "T1w" else {**sources, "SpatialReference": bids_uri(job)}
    if brain:
        made["mask"] = {"Type": "Brain", **place, "Method": dict(brain)}
    if tissue:
        made["dseg"] = {"Description": "Tissue segmentation", **place, "Manual": False, "Method": dict(tissue)}
        for name in TISSUES:
            made[name] = {"Description": f"Probability of {name}", **place, "Method": dict(tissue)}
    return made
