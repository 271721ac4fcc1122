"""BIDS in and out: index a data set into a plan of frozen jobs; own every output name and sidecar.

One derivative data set per method, so that names inside stay the standard ones (BIDS 1.11, derivatives)::

    OUT/<method>/sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_T1w.nii.gz
                                   sub-01_ses-1_desc-T1w_biasfield.nii.gz
                                   sub-01_ses-1_desc-brain_mask.nii.gz  ...

A mask or segmentation drawn on a T1w carries no ``space``, as fMRIPrep writes and reads it; one drawn on another
contrast carries that contrast (``space-T2w``), so that two contrasts of one session do not collide.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import __version__
from .errors import BIDSError, OutputExistsError
from .image import sha256, write_atomic

__all__ = [
    "ANATOMICAL_SUFFIXES",
    "DATASET_DESCRIPTION",
    "Job",
    "index",
    "output_paths",
    "prepare_dataset",
    "sidecar",
    "write_json",
]

ANATOMICAL_SUFFIXES = (
    *("T1w", "T2w", "FLAIR", "PDw", "T2starw", "UNIT1"),
    *("inplaneT1", "inplaneT2", "PDT2", "angio", "T1rho"),
)
DATASET_DESCRIPTION = "dataset_description.json"
BIDS_VERSION = "1.11.0"
RAW = "raw"
# BIDS common labels as fMRIPrep writes them
DSEG_LABELS = "index\tname\tabbreviation\n1\tGray Matter\tGM\n2\tWhite Matter\tWM\n3\tCerebrospinal Fluid\tCSF\n"
TISSUES = ("CSF", "GM", "WM")


@dataclass(frozen=True)
class Job:
    """One scan to correct.

    Attributes
    ----------
    source : absolute path of the image
    relative : its path inside the data set, with forward slashes
    entities : BIDS entities in the order of the file name, such as (("sub", "01"), ("ses", "1"))
    suffix : T1w, T2w, ...
    given : files found under --derivatives, by kind: "mask", "dseg", and "GM", "WM", "CSF" for the probsegs
    warnings : what the sidecar says against correcting this scan
    """

    source: Path
    relative: str
    entities: tuple[tuple[str, str], ...]
    suffix: str
    given: Mapping[str, Path] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def entity(self, key: str) -> str | None:
        return dict(self.entities).get(key)

    @property
    def stem(self) -> str:
        """File name up to the suffix: sub-01_ses-1_run-1."""
        return "_".join(f"{key}-{value}" for key, value in self.entities)

    def as_dict(self) -> dict:
        return {
            "source": str(self.source),
            "relative": self.relative,
            "entities": [list(pair) for pair in self.entities],
            "suffix": self.suffix,
            "given": {kind: str(path) for kind, path in sorted(self.given.items())},
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, record: Mapping) -> Job:
        return cls(
            source=Path(record["source"]),
            relative=record["relative"],
            entities=tuple((key, value) for key, value in record["entities"]),
            suffix=record["suffix"],
            given={kind: Path(path) for kind, path in record["given"].items()},
            warnings=tuple(record["warnings"]),
        )


# --- in


def index(
    bids_dir: str | Path,
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    suffixes: Sequence[str] | None = None,
    derivatives: str | Path | None = None,
) -> list[Job]:
    """List the anatomical images of a BIDS data set as jobs, in the order of their paths.

    Parameters
    ----------
    bids_dir : folder with a dataset_description.json
    participants, sessions : labels, with or without "sub-" or "ses-"; all by default
    suffixes : such as T1w; every anatomical suffix by default
    derivatives : a BIDS derivative data set in which masks and segmentations are looked up

    Raises
    ------
    BIDSError
        There is no such data set, a label does not exist in it, or no image matches.
    """
    layout = _layout(bids_dir)
    participants = _labels(participants, "sub-", layout.get_subjects(), "participant", bids_dir)
    sessions = _labels(sessions, "ses-", layout.get_sessions(), "session", bids_dir)
    wanted = {"datatype": "anat", "extension": [".nii", ".nii.gz"], "suffix": list(suffixes or ANATOMICAL_SUFFIXES)}
    wanted |= {"subject": participants} if participants else {}
    wanted |= {"session": sessions} if sessions else {}
    files = sorted(layout.get(**wanted), key=lambda file: file.relpath)
    files = [file for file in files if file.get_entities().get("part") not in ("phase", "real", "imag")]
    if not files:
        present = sorted({str(f.get_entities().get("suffix")) for f in layout.get(extension=[".nii", ".nii.gz"])})
        asked = [*(f"sub-{p}" for p in participants or []), *(f"ses-{s}" for s in sessions or []), *(suffixes or [])]
        raise BIDSError(
            "no anatomical image matches the selection",
            file=bids_dir,
            value=f"asked for {', '.join(asked) or 'every anatomical image'}; suffixes present: {present or 'none'}",
            next_step="Change --participant-label, --session-label or --suffix.",
        )
    found = _layout(derivatives, derivative=True) if derivatives else None
    return [_job(file, found) for file in files]


def _layout(root: str | Path, *, derivative: bool = False):
    from bids import BIDSLayout

    root = Path(root)
    if not root.is_dir():
        raise BIDSError("no such folder", file=root, next_step="Check the path of the data set.")
    if not (root / DATASET_DESCRIPTION).is_file():
        raise BIDSError(
            f"a BIDS data set has a {DATASET_DESCRIPTION} in its root",
            file=root,
            value="none",
            next_step='Point to the root, or add one: {"Name": "...", "BIDSVersion": "1.11.0"}.',
        )
    try:
        json.loads((root / DATASET_DESCRIPTION).read_text())
    except ValueError as error:
        raise BIDSError("not valid JSON", file=root / DATASET_DESCRIPTION, value=str(error)) from error
    options = {"is_derivative": True, "config": ["bids", "derivatives"]} if derivative else {}
    return BIDSLayout(root, validate=False, **options)


def _labels(asked, prefix: str, present: Iterable[str], what: str, bids_dir) -> list[str] | None:
    if not asked:
        return None
    present = sorted(present)
    labels = [str(label).removeprefix(prefix) for label in asked]
    missing = [label for label in labels if label not in present]
    if missing:
        raise BIDSError(
            f"no such {what} in the data set",
            file=bids_dir,
            value=", ".join(missing),
            next_step=f"Present: {', '.join(present[:20]) or 'none'}{' ...' if len(present) > 20 else ''}.",
        )
    return labels


def _job(file, derivatives) -> Job:
    path = Path(file.path)
    parts = path.name.split(".")[0].split("_")
    entities = tuple(tuple(part.split("-", 1)) for part in parts[:-1] if "-" in part)
    job = Job(path.resolve(), Path(file.relpath).as_posix(), entities, parts[-1], {}, _sidecar_warnings(file))
    if derivatives is None:
        return job
    return Job(job.source, job.relative, entities, job.suffix, _given(job, derivatives), job.warnings)


def _sidecar_warnings(file) -> tuple[str, ...]:
    image_type = file.get_metadata().get("ImageType") or []
    if "NORM" in image_type:
        return ("The sidecar's ImageType has NORM: the scanner corrected this image already.",)
    return ()


def _given(job: Job, layout) -> dict[str, Path]:
    """Masks and segmentations in a derivative data set that belong to this scan's own grid."""
    found: dict[str, Path] = {}
    for file in layout.get(subject=job.entity("sub"), extension=[".nii", ".nii.gz"]):
        name = Path(file.path).name.split(".")[0]
        parts = dict(part.split("-", 1) for part in name.split("_") if "-" in part)
        own = all(parts.get(key) == value for key, value in job.entities)
        foreign = {key for key in parts if key not in dict(job.entities)} - {"desc", "space", "label", "res"}
        if not own or foreign or not _same_space(job, parts, name):
            continue
        kind = name.rsplit("_", 1)[-1]
        if kind == "mask" and parts.get("desc") == "brain":
            found["mask"] = Path(file.path)
        elif kind == "dseg" and "desc" not in parts:
            found["dseg"] = Path(file.path)
        elif kind == "probseg" and parts.get("label") in TISSUES:
            found[parts["label"]] = Path(file.path)
    return found


def _same_space(job: Job, parts: Mapping[str, str], name: str) -> bool:
    if f"_{job.suffix}_" in name:  # an older spelling, sub-01_T2w_desc-brain_mask, names the contrast itself
        return "space" not in parts
    return parts.get("space") == job.suffix or (job.suffix == "T1w" and "space" not in parts)


# --- out


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


def write_json(path: Path, content: Mapping) -> None:
    """Write JSON whole or not at all."""
    text = json.dumps(content, indent=2, default=str) + "\n"
    write_atomic(path, lambda stream: stream.write(text.encode()))


def prepare_dataset(
    dataset: str | Path, bids_dir: str | Path, label: str, description: str, *, overwrite: bool = False
) -> None:
    """Make a derivative data set's root: dataset_description.json, .bidsignore, dseg.tsv, README.

    Raises
    ------
    OutputExistsError
        The folder holds something that this package did not write.
    """
    dataset = Path(dataset)
    if dataset.is_dir() and any(dataset.iterdir()) and not _ours(dataset) and not overwrite:
        raise OutputExistsError(
            "the folder is not empty and was not written by biascorr_pydra",
            file=dataset,
            next_step="Choose another --out-dir.",
        )
    dataset.mkdir(parents=True, exist_ok=True)
    raw = Path(bids_dir).resolve()
    link = Path(os.path.relpath(raw, dataset.resolve())).as_posix()
    source = json.loads((raw / DATASET_DESCRIPTION).read_text())
    write_json(
        dataset / DATASET_DESCRIPTION,
        {
            "Name": f"Bias correction by {label} of {source.get('Name', raw.name)}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": source.get("License", "n/a"),
            "GeneratedBy": [{"Name": "biascorr_pydra", "Version": __version__, "Description": description}],
            "SourceDatasets": [{"URL": source["DatasetDOI"]} if source.get("DatasetDOI") else {"URL": link}],
            "DatasetLinks": {RAW: link},
        },
    )
    _write_text(dataset / ".bidsignore", "*_biasfield.*\n*_metrics.json\n")
    _write_text(dataset / "dseg.tsv", DSEG_LABELS)
    _write_text(
        dataset / "README",
        f"Images corrected for the bias field by {label}, with the fields, masks and segmentations.\n"
        "corrected = acquired / biasfield; the field has mean 1 over the mask.\n",
    )


def _ours(dataset: Path) -> bool:
    try:
        made = json.loads((dataset / DATASET_DESCRIPTION).read_text()).get("GeneratedBy", [])
        return any(entry.get("Name") == "biascorr_pydra" for entry in made)
    except (OSError, ValueError, AttributeError):
        return False


def _write_text(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text() != text:
        write_atomic(path, lambda stream: stream.write(text.encode()))


def sidecars(job: Job, correction: Mapping, brain: Mapping | None, tissue: Mapping | None) -> dict[str, dict]:
    """JSON sidecar of each image output, by kind, from the records of the steps that made them."""
    sources = {"Sources": [bids_uri(job)]}
    method = {
        "SourceSHA256": sha256(job.source),
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
        "MaskResampled": correction["mask_resampled"],
        "Intensities": correction["intensities"],
        "FieldSummary": correction["field"],
        "EstimateRecord": correction["estimate"],
        "Warnings": [*job.warnings, *correction["warnings"]],
        "Software": correction["software"],
    }
    made = {
        "corrected": {
            "Description": "Acquired image divided by the bias field",
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
