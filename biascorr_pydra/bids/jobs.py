"""BIDS in: a data set indexed into a list of frozen jobs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biascorr_pydra.errors import BIDSError

from .entities import Entities, join, parse
from .signs import signs_of_correction

if TYPE_CHECKING:
    from bids import BIDSLayout
    from bids.layout import BIDSFile

__all__ = ["ANATOMICAL_SUFFIXES", "DATASET_DESCRIPTION", "TISSUES", "Job", "index", "survey"]

ANATOMICAL_SUFFIXES = (
    *("T1w", "T2w", "FLAIR", "PDw", "T2starw", "UNIT1"),
    *("inplaneT1", "inplaneT2", "PDT2", "angio", "T1rho"),
)
DATASET_DESCRIPTION = "dataset_description.json"
TISSUES = ("CSF", "GM", "WM")
#: Metadata that tell of an earlier correction.
SIGNS = ("ImageType", "FieldScaledOver")
IMAGES = [".nii", ".nii.gz"]
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
    entities: Entities
    suffix: str
    given: Mapping[str, Path] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def entity(self, key: str) -> str | None:
        """The label of an entity; None where the scan's name has none."""
        return dict(self.entities).get(key)

    @property
    def stem(self) -> str:
        """File name up to the suffix: sub-01_ses-1_run-1."""
        return join(self.entities)

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
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
    def from_dict(cls, record: Mapping[str, Any]) -> Job:
        """From what :meth:`as_dict` gave."""
        return cls(
            source=Path(record["source"]),
            relative=record["relative"],
            entities=tuple((key, value) for key, value in record["entities"]),
            suffix=record["suffix"],
            given={kind: Path(path) for kind, path in record["given"].items()},
            warnings=tuple(record["warnings"]),
            metadata=record["metadata"],
        )


def index(bids_dir: str | Path, **selection: Any) -> list[Job]:
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
    subjects = _labels(participants, "sub-", layout.get_subjects(), "participant", bids_dir)
    visits = _labels(sessions, "ses-", layout.get_sessions(), "session", bids_dir)
    query: dict[str, Any] = {"datatype": "anat", "extension": IMAGES, "suffix": list(suffixes or ANATOMICAL_SUFFIXES)}
    query |= {"subject": subjects} if subjects else {}
    query |= {"session": visits} if visits else {}
    files = sorted(layout.get(**query), key=lambda file: file.relpath)
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
        asked = [*(f"sub-{s}" for s in subjects or []), *(f"ses-{v}" for v in visits or []), *(suffixes or [])]
        raise _no_match(layout, bids_dir, asked)
    given = _layout(derivatives, derivative=True) if derivatives else None
    return [_job(file, given, Path(bids_dir)) for file in files], skipped


def _no_match(layout: BIDSLayout, bids_dir: str | Path, asked: Sequence[str]) -> BIDSError:
    present = sorted({str(file.get_entities().get("suffix")) for file in layout.get(extension=IMAGES)})
    return BIDSError(
        "no anatomical image matches the selection",
        file=bids_dir,
        value=f"asked for {', '.join(asked) or 'every anatomical image'}; suffixes present: {present or 'none'}",
        next_step="Change --participant-label, --session-label or --suffix.",
    )


def _layout(root: str | Path, *, derivative: bool = False, described: bool = True) -> BIDSLayout:
    from bids import BIDSLayout, BIDSLayoutIndexer

    root = Path(root)
    if not root.is_dir():
        raise BIDSError("no such folder", file=root, next_step="Check the path of the data set.")
    has_description = (root / DATASET_DESCRIPTION).is_file()
    if described and not has_description:
        raise BIDSError(
            f"a BIDS data set has a {DATASET_DESCRIPTION} in its root",
            file=root,
            value="none",
            next_step='Point to the root, or add one: {"Name": "...", "BIDSVersion": "1.11.0"}.',
        )
    try:
        description = json.loads((root / DATASET_DESCRIPTION).read_text()) if has_description else {}
    except ValueError as error:
        raise BIDSError("not valid JSON", file=root / DATASET_DESCRIPTION, value=str(error)) from error
    if not isinstance(description, dict):
        raise BIDSError("not a JSON object", file=root / DATASET_DESCRIPTION, value=type(description).__name__)
    options = {"is_derivative": True, "config": ["bids", "derivatives"]} if derivative else {}
    # One damaged sidecar would stop the indexing of all; the little that is needed of them is read scan by scan.
    return BIDSLayout(root, validate=False, indexer=BIDSLayoutIndexer(validate=False, index_metadata=False), **options)


def _labels(
    asked: Sequence[str] | None, prefix: str, present: Iterable[str], kind: str, bids_dir: str | Path
) -> list[str] | None:
    if not asked:
        return None
    present = sorted(present)
    labels = [str(label).removeprefix(prefix) for label in asked]
    missing = [label for label in labels if label not in present]
    if missing:
        raise BIDSError(
            f"no such {kind} in the data set",
            file=bids_dir,
            value=", ".join(missing),
            next_step=f"Present: {', '.join(present[:20]) or 'none'}{' ...' if len(present) > 20 else ''}.",
        )
    return labels


def _job(file: BIDSFile, derivatives: BIDSLayout | None, root: Path) -> Job:
    path = Path(file.path)
    name = parse(path.name)
    # Not resolved: a link's target (as of git-annex) has another name than the scan.
    job = Job(path.absolute(), Path(file.relpath).as_posix(), name.entities, name.suffix)
    given = {} if derivatives is None else _given(job, derivatives)
    metadata, warnings = _metadata(job, root.absolute())
    return replace(job, given=given, metadata=metadata, warnings=(*warnings, *signs_of_correction(metadata).intensity))


def _metadata(job: Job, root: Path) -> tuple[dict[str, Any], list[str]]:
    """What the scan's sidecars, inherited ones included, say of earlier corrections, and what is wrong with them.

    The nearest sidecar counts.
    """
    warnings: list[str] = []
    metadata: dict[str, Any] = {}
    folders = [root, *(root / parent for parent in reversed(Path(job.relative).parents) if parent != Path())]
    for sidecar in [file for folder in folders for file in sorted(folder.glob(f"*{job.suffix}.json"))]:
        if not _describes(sidecar, job):
            continue
        try:
            content = json.loads(sidecar.read_text())
            metadata |= {name: content[name] for name in SIGNS if name in content}
        except (OSError, ValueError, AttributeError) as error:
            warnings.append(f"The sidecar {sidecar.relative_to(root).as_posix()} cannot be read ({error}).")
    return metadata, warnings


def _describes(sidecar: Path, job: Job) -> bool:
    """Whether the inheritance principle applies a sidecar of these entities to a scan; every part must be an entity."""
    *parts, suffix = sidecar.stem.split("_")
    return suffix == job.suffix and {tuple(part.split("-", 1)) for part in parts} <= set(job.entities)


def _given(job: Job, layout: BIDSLayout) -> dict[str, Path]:
    """Masks and segmentations in a derivative data set that belong to this scan's own grid."""
    given: dict[str, Path] = {}
    for file in layout.get(subject=job.entity("sub"), extension=IMAGES):
        kind = _kind_of(job, Path(file.path).name)
        if kind:
            given[kind] = Path(file.path)
    return given


def _kind_of(job: Job, file_name: str) -> str | None:
    """What a derivative is to a scan: "mask", "dseg", a tissue's name; None where it is not the scan's."""
    name = parse(file_name)
    labels = dict(name.entities)
    own = all(labels.get(key) == label for key, label in job.entities)
    foreign = set(labels) - set(dict(job.entities)) - {"desc", "space", "label", "res"}
    if not own or foreign or not _same_space(job, labels, file_name.split(".")[0]):
        return None
    if name.suffix == "mask" and labels.get("desc") == "brain":
        return "mask"
    if name.suffix == "dseg" and "desc" not in labels:
        return "dseg"
    return labels["label"] if name.suffix == "probseg" and labels.get("label") in TISSUES else None


def _same_space(job: Job, parts: Mapping[str, str], name: str) -> bool:
    if f"_{job.suffix}_" in name:  # an older spelling, sub-01_T2w_desc-brain_mask, names the contrast itself
        return "space" not in parts
    return parts.get("space") == job.suffix or (job.suffix == "T1w" and "space" not in parts)
