"""Normalize a cohort: a BIDS data set, or a study of one a site, into derivative data sets of normalized images."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from biascorr_pydra import __version__, bids, lock, weights
from biascorr_pydra.anatomy.brain import METHODS as BRAIN_METHODS
from biascorr_pydra.anatomy.steps import extract_file
from biascorr_pydra.cohort.plan import metrics_complete
from biascorr_pydra.cohort.status import Row, write
from biascorr_pydra.errors import BiasCorrError, InvalidParameterError, OutputError
from biascorr_pydra.images import files

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


def normalize_cohort(
    bids_dir: str | Path,
    out_dir: str | Path,
    *,
    participants: Sequence[str] = (),
    suffix: str = "T1w",
    skull_strip: str = "auto",
    derivatives: str | None = None,
    speed: str = "paper",
    weights_file: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    told: Callable[[str, Row], None] | None = None,
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
        Also replace a data set that this package did not write.
    told : called with the data set's name and the row of each scan as it ends

    Raises
    ------
    BiasCorrError
        The data set, the selection, the weights or the output folder cannot be used. A scan that fails is a row.
    """
    if skull_strip not in BRAIN_METHODS:
        raise InvalidParameterError(
            "unknown skull stripping", value=repr(skull_strip), next_step=f"One of: {', '.join(BRAIN_METHODS)}."
        )
    source = str(weights_file) if weights_file else "deepnormalize"
    how = {"skull_strip": skull_strip, "speed": speed, "suffix": suffix, "weights": weights.sha256_of(source)}
    found: dict[str, list[Row]] = {}
    with lock.exclusive(Path(out_dir), {"what": "normalization of a cohort"}):
        for root in bids.find_site_roots(bids_dir):
            place = Path(out_dir) / root.name if root.name else Path(out_dir)
            if place.resolve() == root.path.resolve():
                raise OutputError("the output folder is the input data set", file=place, next_step="Give another.")
            given = None if derivatives is None else root.path / derivatives
            jobs, _ = bids.survey(
                root.path,
                participants=participants or None,
                suffixes=[suffix],
                derivatives=given,
                allow_undescribed=True,
            )
            _prepare(place, root.path, overwrite)
            rows = []
            for job in jobs:
                rows.append(_one(job, place / bids.NORMALIZED, how, device, weights_file))
                if told:
                    told(root.name, rows[-1])
            write(place, rows)
            found[root.name] = rows
    return Outcome(found)


def _prepare(place: Path, bids_dir: Path, overwrite: bool) -> None:
    bids.prepare_dataset(
        place / bids.NORMALIZED,
        bids_dir,
        "deepnormalize",
        "Learned normalization; no correction of the bias field",
        overwrite=overwrite,
        what="Normalization",
        readme=bids.NORMALIZED_README,
    )


def _one(job: bids.Job, dataset: Path, how: Mapping, device: str, weights_file) -> Row:
    """Normalize one scan, if it is not done yet; its row of the status table."""
    paths = bids.normalized_paths(job, dataset)
    try:
        key = _key(job, how)
        if metrics_complete(paths["record"], dataset, key):
            return Row(job.relative, bids.NORMALIZED, "cached")
        _normalize(job, dataset, paths, how, device, weights_file, key)
    except (BiasCorrError, OSError, MemoryError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Row(job.relative, bids.NORMALIZED, "failed", reason)
    return Row(job.relative, bids.NORMALIZED, "done")


def _normalize(job: bids.Job, dataset: Path, paths, how, device: str, weights_file, key: str) -> None:
    paths["record"].parent.mkdir(parents=True, exist_ok=True)
    paths["record"].unlink(missing_ok=True)  # until the new one is there, the scan counts as not done
    with tempfile.TemporaryDirectory(prefix="biascorr-") as folder:
        brain = mask_file = None
        if how["skull_strip"] != "none":
            made = extract_file(
                job.source,
                folder,
                method=how["skull_strip"],
                suffix=job.suffix,
                mask_file=job.given.get("mask"),
                device=device,
            )
            brain, mask_file = json.loads(made.record_file.read_text()), made.mask_file
        record = normalize_file(
            job.source,
            paths["normalized"],
            mask_file=mask_file,
            dseg_file=paths["dseg"],
            probseg_files={tissue: paths[tissue] for tissue in bids.TISSUES},
            speed=how["speed"],
            weights_file=weights_file,
            device=device,
            overwrite=True,
        ).as_dict()
        if mask_file is not None:
            files.write_bytes(paths["mask"], mask_file.read_bytes())
    record["method"] = {**record["method"], "version": __version__}
    sidecars = bids.normalized_sidecars(job, record, brain)
    for kind, about in sidecars.items():
        files.write_json(bids.sidecar(paths[kind]), about)
    sizes = {paths[kind].relative_to(dataset).as_posix(): paths[kind].stat().st_size for kind in sidecars}
    facts = {"source": bids.bids_uri(job), "suffix": job.suffix, "skull_strip": brain and brain["Name"], **record}
    facts["mask_file"] = None  # it was a temporary one; the data set has it
    files.write_json(paths["record"], facts | {"work": {"key": key, "run_id": None, "files": sizes}})


def _key(job: bids.Job, how: Mapping) -> str:
    """A name for this work: everything that the result depends on."""
    given = files.sha256(job.given["mask"]) if "mask" in job.given and how["skull_strip"] == "given" else None
    content = {**how, "source": files.sha256(job.source), "mask": given, "package": __version__}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
