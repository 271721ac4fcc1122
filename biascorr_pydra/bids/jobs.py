"""BIDS in: a data set indexed into a list of frozen jobs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from biascorr_pydra.errors import BIDSError

from .signs import signs_of_correction

__all__ = ["ANATOMICAL_SUFFIXES", "DATASET_DESCRIPTION", "TISSUES", "Job", "index", "survey"]

ANATOMICAL_SUFFIXES = (
    *("T1w", "T2w", "FLAIR", "PDw", "T2starw", "UNIT1"),
    *("inplaneT1", "inplaneT2", "PDT2", "angio", "T1rho"),
)
DATASET_DESCRIPTION = "dataset_description.json"
TISSUES = ("CSF", "GM", "WM")
#: Metadata that tell of an earlier correction.
SIGNS = ("ImageType", "FieldScaledOver")
NOT_INTENSITIES = ("phase", "real", "imag")


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
    metadata : what the sidecars say of earlier corrections (ImageType), inherited ones included
    """

    source: Path
    relative: str
    entities: tuple[tuple[str, str], ...]
    suffix: str
    given: Mapping[str, Path] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

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
            "metadata": dict(self.metadata),
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
            metadata=record["metadata"],
        )


def index(bids_dir: str | Path, **selection) -> list[Job]:
    """List the anatomical images of a BIDS data set as jobs; see :func:`survey`."""
    return survey(bids_dir, **selection)[0]


def survey(
    bids_dir: str | Path,
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    suffixes: Sequence[str] | None = None,
    derivatives: str | Path | None = None,
    allow_undescribed: bool = False,
) -> tuple[list[Job], dict[str, str]]:
    """List the anatomical images of a BIDS data set as jobs, in the order of their paths.

    Parameters
    ----------
    bids_dir : folder with a dataset_description.json
    participants, sessions : labels, with or without "sub-" or "ses-"; all by default
    suffixes : such as T1w; every anatomical suffix by default
    derivatives : a BIDS derivative data set in which masks and segmentations are looked up
    allow_undescribed : also take a data set without dataset_description.json, as some public ones are

    Returns
    -------
    jobs : list of Job
    skipped : path in the data set -> why an image of the selection is not one to correct

    Raises
    ------
    BIDSError
        There is no such data set, a label does not exist in it, or no image matches.
    """
    layout = _layout(bids_dir, described=not allow_undescribed)
    participants = _labels(participants, "sub-", layout.get_subjects(), "participant", bids_dir)
    sessions = _labels(sessions, "ses-", layout.get_sessions(), "session", bids_dir)
    wanted = {"datatype": "anat", "extension": [".nii", ".nii.gz"], "suffix": list(suffixes or ANATOMICAL_SUFFIXES)}
    wanted |= {"subject": participants} if participants else {}
    wanted |= {"session": sessions} if sessions else {}
    files = sorted(layout.get(**wanted), key=lambda file: file.relpath)
    # Derivatives and sources inside the data set are not its raw images; phase is not an intensity.
    files = [file for file in files if Path(file.relpath).parts[0].startswith("sub-")]
    parts = {file.path: file.get_entities().get("part") for file in files}
    skipped = {
        Path(file.relpath).as_posix(): f"part-{parts[file.path]}: its values are not intensities"
        for file in files
        if parts[file.path] in NOT_INTENSITIES
    }
    files = [file for file in files if parts[file.path] not in NOT_INTENSITIES]
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
    return [_job(file, found, Path(bids_dir)) for file in files], skipped


def _layout(root: str | Path, *, derivative: bool = False, described: bool = True):
    from bids import BIDSLayout, BIDSLayoutIndexer

    root = Path(root)
    if not root.is_dir():
        raise BIDSError("no such folder", file=root, next_step="Check the path of the data set.")
    there = (root / DATASET_DESCRIPTION).is_file()
    if described and not there:
        raise BIDSError(
            f"a BIDS data set has a {DATASET_DESCRIPTION} in its root",
            file=root,
            value="none",
            next_step='Point to the root, or add one: {"Name": "...", "BIDSVersion": "1.11.0"}.',
        )
    try:
        description = json.loads((root / DATASET_DESCRIPTION).read_text()) if there else {}
    except ValueError as error:
        raise BIDSError("not valid JSON", file=root / DATASET_DESCRIPTION, value=str(error)) from error
    if not isinstance(description, dict):
        raise BIDSError("not a JSON object", file=root / DATASET_DESCRIPTION, value=type(description).__name__)
    options = {"is_derivative": True, "config": ["bids", "derivatives"]} if derivative else {}
    # One damaged sidecar would stop the indexing of all; the little that is needed of them is read scan by scan.
    return BIDSLayout(root, validate=False, indexer=BIDSLayoutIndexer(validate=False, index_metadata=False), **options)


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


def _job(file, derivatives, root: Path) -> Job:
    path = Path(file.path)
    parts = path.name.split(".")[0].split("_")
    entities = tuple(tuple(part.split("-", 1)) for part in parts[:-1] if "-" in part)
    # Not resolved: a link's target (as of git-annex) has another name than the scan.
    job = Job(path.absolute(), Path(file.relpath).as_posix(), entities, parts[-1])
    given = {} if derivatives is None else _given(job, derivatives)
    metadata, warnings = _metadata(job, root.absolute())
    return replace(job, given=given, metadata=metadata, warnings=(*warnings, *signs_of_correction(metadata).intensity))


def _metadata(job: Job, root: Path) -> tuple[dict[str, Any], list[str]]:
    """What the scan's sidecars, inherited ones included, say of earlier corrections, and what is wrong with them.

    The nearest sidecar counts.
    """
    warnings, metadata = [], {}
    folders = [root, *(root / parent for parent in reversed(Path(job.relative).parents) if parent != Path())]
    for sidecar in [file for folder in folders for file in sorted(folder.glob(f"*{job.suffix}.json"))]:
        *entities, suffix = sidecar.stem.split("_")
        if suffix != job.suffix or not {tuple(e.split("-", 1)) for e in entities} <= set(job.entities):
            continue
        try:
            content = json.loads(sidecar.read_text())
            metadata |= {name: content[name] for name in SIGNS if name in content}
        except (OSError, ValueError, AttributeError) as error:
            warnings.append(f"The sidecar {sidecar.relative_to(root).as_posix()} cannot be read ({error}).")
    return metadata, warnings


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
