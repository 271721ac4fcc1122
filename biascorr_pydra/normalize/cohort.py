"""Normalize a cohort: a BIDS data set, or a study of one a site, into derivative data sets of normalized images."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from biascorr_pydra import __version__, bids, lock, weights
from biascorr_pydra.anatomy.brain import METHODS as BRAIN_METHODS
from biascorr_pydra.anatomy.brain import extract_file
from biascorr_pydra.bids import NORMALIZED, NORMALIZED_OUTPUTS, Job, SiteRoot
from biascorr_pydra.cohort import Plan, check_out_dir, is_complete, key_of, problems_of, publish, status, unfinished
from biascorr_pydra.cohort.plan import digest, hashes_of
from biascorr_pydra.cohort.status import Row
from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.images.files import Hashes

from .file import normalize_file

__all__ = ["Outcome", "normalize_cohort"]


@dataclass(frozen=True)
class Outcome:
    """What became of the scans: the rows of status.tsv by data set ("" where there is only one)."""

    rows: Mapping[str, Sequence[Row]]

    @property
    def failed(self) -> list[Row]:
        """Scans without a normalized image, with the reason."""
        return [row for rows in self.rows.values() for row in rows if row.state == "failed"]

    @property
    def done(self) -> int:
        """Scans that have one, from this run or from an earlier one."""
        return sum(row.state in ("done", "cached") for rows in self.rows.values() for row in rows)


@dataclass(frozen=True)
class Choices:
    """How the scans of a run are normalized."""

    participants: tuple[str, ...]
    suffix: str
    skull_strip: str
    derivatives: str | Path | None
    speed: str
    weights_file: str | Path | None
    device: str
    overwrite: bool

    def __post_init__(self) -> None:
        if self.skull_strip not in BRAIN_METHODS:
            next_step = f"One of: {', '.join(BRAIN_METHODS)}."
            raise InvalidParameterError("unknown skull stripping", value=repr(self.skull_strip), next_step=next_step)

    @cached_property
    def in_key(self) -> dict[str, str]:
        """Those that the result depends on."""
        sha256 = weights.sha256_of(str(self.weights_file) if self.weights_file else "deepnormalize")
        return {"skull_strip": self.skull_strip, "speed": self.speed, "suffix": self.suffix, "weights": sha256}


def normalize_cohort(
    bids_dir: str | Path,
    out_dir: str | Path,
    *,
    participants: Sequence[str] = (),
    suffix: str = "T1w",
    skull_strip: str = "auto",
    derivatives: str | Path | None = None,
    speed: str = "paper",
    weights_file: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: Callable[[str, Row], None] | None = None,
) -> Outcome:
    """Normalize every scan of one contrast, one after another; run again, it goes on with what is not done.

    Parameters
    ----------
    bids_dir : a BIDS data set, or a folder with one data set a site
    out_dir : path
        ``OUT/deepnormalize-normalized``, and for a study ``OUT/SITE/deepnormalize-normalized``, get a derivative data
        set: ``desc-normalized`` images, brain masks, segmentations, and a record of each scan.
    participants : labels, with or without "sub-"; all by default
    suffix : BIDS suffix; the packaged weights are for T1w
    skull_strip : method of :func:`biascorr_pydra.anatomy.brain.extract_brain`; "none" for images that are stripped
    derivatives : path, optional
        Derivative data set with brain masks, for "given"; for a study, relative to each data set.
    speed, weights_file, device : see :func:`biascorr_pydra.normalize.normalize_file`
    overwrite : bool
        Also replace what this package did not write.
    progress : called with the data set's name and the row of each scan as it ends

    Raises
    ------
    BiasCorrError
        Before anything is written: the data set, the selection, the weights or the output folder cannot be used.
        A scan that fails, for whatever reason, is a row.
    """
    choices = Choices(tuple(participants), suffix, skull_strip, derivatives, speed, weights_file, device, overwrite)
    roots = bids.find_site_roots(bids_dir)
    labels = bids.participants_by_root(roots, choices.participants, bids_dir) if len(roots) > 1 else {}
    if labels:  # of a study, the data sets that have what was asked for
        asked = [root for root in roots if labels[root] or not choices.participants]
        roots = [root for root in asked if root.has(choices.suffix)] or asked
    plans = {
        root: _plan(root, Path(out_dir) / root.name, labels.get(root) or choices.participants, choices)
        for root in roots
    }
    with lock.exclusive(Path(out_dir), {"what": "normalization of a cohort"}):
        if any(root.name for root in roots):
            bids.mark_study(out_dir)
        for root, plan in plans.items():
            _begin(plan, root, choices)
        rows = {root.name: _run(plan, root, choices, progress) for root, plan in plans.items()}
    return Outcome(rows)


def _plan(root: SiteRoot, out_dir: Path, participants: Sequence[str], choices: Choices) -> Plan:
    """What is left to do of one data set; touches nothing."""
    jobs, skipped = bids.survey(
        root.path,
        participants=participants or None,
        suffixes=[choices.suffix],
        derivatives=None if choices.derivatives is None else root.path / choices.derivatives,
        allow_undescribed=True,
    )
    check_out_dir(out_dir, root.path, [NORMALIZED], overwrite=choices.overwrite)
    hashes = hashes_of(out_dir)
    keys = {(job.relative, NORMALIZED): key_of(_inputs(job, choices.in_key, hashes)) for job in jobs}
    needed = {"mask": {"mask"}} if choices.skull_strip == "given" else {}
    problems = problems_of(jobs, NORMALIZED_OUTPUTS, needed)

    def is_done(job: Job, label: str) -> bool:
        dataset = out_dir / label
        return is_complete(NORMALIZED_OUTPUTS.record_file(job, dataset), dataset, keys[job.relative, label])

    return Plan(
        out_dir=out_dir,
        labels=(NORMALIZED,),
        outputs=NORMALIZED_OUTPUTS,
        jobs=tuple(jobs),
        keys=keys,
        problems=problems,
        skipped=skipped,
        pending=unfinished(jobs, [NORMALIZED], problems, is_done),
        whole=False,  # of one contrast only: the table may have rows of another
        hashes=hashes,
    )


def _inputs(job: Job, in_key: Mapping[str, str], hashes: Hashes) -> dict[str, Any]:
    """Everything that the result depends on."""
    given = job.given.get("mask") if in_key["skull_strip"] == "given" else None
    mask = given and digest(given, hashes)
    return {**in_key, "source": digest(job.source, hashes), "mask": mask, "package": __version__}


def _begin(plan: Plan, root: SiteRoot, choices: Choices) -> None:
    bids.prepare_dataset(
        plan.out_dir / NORMALIZED,
        root.path,
        "deepnormalize",
        "Learned normalization; no correction of the bias field",
        overwrite=choices.overwrite,
        action="Normalization",
        readme=bids.NORMALIZED_README,
    )
    status.begin(plan)
    plan.hashes.keep()


def _run(plan: Plan, root: SiteRoot, choices: Choices, progress: Callable[[str, Row], None] | None) -> list[Row]:
    """Normalize what is pending; the rows of the status table, each written as its scan ends."""
    pending = {job.relative: job for job, _ in plan.pending}
    rows = []
    for row in status.expected(plan):
        if row.scan in pending:
            row = _attempt(pending[row.scan], plan, choices)
            status.write(plan.out_dir, [row])
        rows.append(row)
        if progress:
            progress(root.name, row)
    return rows


def _attempt(job: Job, plan: Plan, choices: Choices) -> Row:
    try:
        _normalize(job, plan, choices)
    except Exception as error:  # whatever befalls a scan, as a GPU without memory, the others go on
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Row(job.relative, NORMALIZED, "failed", reason)
    return Row(job.relative, NORMALIZED, "done")


def _normalize(job: Job, plan: Plan, choices: Choices) -> None:
    with tempfile.TemporaryDirectory(prefix="biascorr-") as folder:
        brain = None
        files = {kind: Path(folder, f"{kind}.nii.gz") for kind in ("normalized", "dseg", *bids.TISSUES)}
        if choices.skull_strip != "none":
            made = extract_file(
                job.source,
                folder,
                method=choices.skull_strip,
                suffix=job.suffix,
                mask_file=job.given.get("mask"),
                device=choices.device,
            )
            brain, files["mask"] = json.loads(made.record_file.read_text()), made.mask_file
        record = normalize_file(
            job.source,
            files["normalized"],
            mask_file=files.get("mask"),
            dseg_file=files["dseg"],
            probseg_files={tissue: files[tissue] for tissue in bids.TISSUES},
            speed=choices.speed,
            weights_file=choices.weights_file,
            device=choices.device,
        ).as_dict()
        record["method"] = {**record["method"], "version": __version__}
        about = {"source": bids.bids_uri(job), "suffix": job.suffix, "skull_strip": brain and brain["Name"]}
        publish(
            job,
            NORMALIZED_OUTPUTS,
            plan.out_dir / NORMALIZED,
            files,
            {"normalization": record, **({"brain": brain} if brain else {})},
            {**about, **record, "mask_file": None},  # it was a temporary one; the data set has it
            key=plan.keys[job.relative, NORMALIZED],
            run_id=None,
            overwrite=choices.overwrite,
        )
