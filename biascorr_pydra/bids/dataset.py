"""What the root of a derivative data set says, and whether a folder is one that this package may write into."""

from __future__ import annotations

import json
import os
from pathlib import Path

from biascorr_pydra import __version__
from biascorr_pydra.errors import OutputError, OutputExistsError
from biascorr_pydra.images.files import is_temporary, write_json, write_text

from .jobs import DATASET_DESCRIPTION
from .judged import JUDGED
from .normalized import NORMALIZED_OUTPUTS
from .outputs import CORRECTED, RAW

__all__ = ["GROUP_FILES", "STATUS_COLUMNS", "check_ours", "is_ours", "make_folder", "prepare_dataset"]

# in the output folder, beside the methods' data sets; the status table comes first, both here and in time
GROUP_FILES: tuple[str, ...] = ("status.tsv", "metrics.tsv", "metrics.json", "report.html", "reports")
STATUS_COLUMNS = ("scan", "method", "state", "reason")
BIDS_VERSION = "1.11.0"
# BIDS common labels as fMRIPrep writes them
DSEG_LABELS = "index\tname\tabbreviation\n1\tGray Matter\tGM\n2\tWhite Matter\tWM\n3\tCerebrospinal Fluid\tCSF\n"
IGNORED = "".join(
    f"{pattern}\n" for outputs in (CORRECTED, NORMALIZED_OUTPUTS, JUDGED) for pattern in outputs.ignored()
)


def prepare_dataset(
    dataset: str | Path,
    bids_dir: str | Path,
    label: str,
    description: str,
    *,
    overwrite: bool = False,
    action: str = "Bias correction",
    readme: str | None = None,
) -> None:
    """Make a derivative data set's root: dataset_description.json, .bidsignore, dseg.tsv, README.

    ``action`` was done by ``label``, for the name; ``readme`` is said instead of what a correction's data set is.

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
            "Name": f"{action} by {label} of {source.get('Name', raw.name)}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": source.get("License", "n/a"),
            "GeneratedBy": [{"Name": "biascorr_pydra", "Version": __version__, "Description": description}],
            "SourceDatasets": [{"URL": source["DatasetDOI"]} if source.get("DatasetDOI") else {"URL": link}],
            "DatasetLinks": {RAW: link},
        },
    )
    _write_text(dataset / ".bidsignore", IGNORED)
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
    if dataset.is_dir() and any(not is_temporary(path.name) for path in dataset.iterdir()) and not is_ours(dataset):
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


def is_ours(dataset: Path) -> bool:
    """Whether a folder is a derivative data set that this package made."""
    try:
        made = json.loads((dataset / DATASET_DESCRIPTION).read_text()).get("GeneratedBy", [])
        return any(entry.get("Name") == "biascorr_pydra" for entry in made)
    except (OSError, ValueError, AttributeError):
        return False


def _write_text(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        write_text(path, text)
