"""A tiny data set of several sessions, runs and contrasts, and its files published as by one method."""

import json

import numpy as np
import pytest

from biascorr_pydra import bids
from biascorr_pydra.bids import CORRECTED
from biascorr_pydra.cohort import Settings, plan_correction, publish
from biascorr_pydra.cohort.publish import metrics_record
from biascorr_pydra.images import files, nifti
from biascorr_pydra.methods.spec import MethodSpec

DESCRIPTION = {"Name": "tiny", "BIDSVersion": "1.11.0", "License": "CC0"}


@pytest.fixture
def tiny(tmp_path, phantom):
    """Two participants; sub-01 with two sessions, one T1w in each and a T2w in the first; sub-02 with runs."""
    root = tmp_path / "raw"
    names = [
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-02/anat/sub-02_acq-fast_run-1_T1w.nii.gz",
        "sub-02/anat/sub-02_acq-fast_run-2_T1w.nii.gz",
        "sub-02/anat/sub-02_mod-T1w_defacemask.nii.gz",
        "sub-02/func/sub-02_task-rest_bold.nii.gz",
    ]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        nifti.save(phantom.image(dtype=np.int16), root / name)
    (root / "dataset_description.json").write_text(json.dumps(DESCRIPTION))
    (root / "T1w.json").write_text(json.dumps({"ImageType": ["ORIGINAL", "PRIMARY"]}))
    (root / "sub-02/anat/sub-02_acq-fast_run-2_T1w.json").write_text(json.dumps({"ImageType": ["ORIGINAL", "NORM"]}))
    return root


def settings(bids_dir, out_dir, **choices):
    choices = {"methods": (MethodSpec("n4"),), **choices}
    return Settings(bids_dir=bids_dir, out_dir=out_dir, **choices)


def implementation(method, preset):
    return f"{method} {preset} version 1"


def relatives(jobs):
    return [job.relative for job in jobs]


@pytest.fixture
def published(tiny, tmp_path, phantom_file):
    """A plan of which every scan has been published by n4."""
    plan = plan_correction(settings(tiny, tmp_path / "out"), implementation)
    bids.prepare_dataset(tmp_path / "out/n4", tiny, "n4", "test")
    for job in plan.jobs:
        put(job, plan, phantom_file)
    return plan


def put(job, plan, phantom_file, kinds=("corrected", "bias"), records=None, replace=None, outputs=CORRECTED, **options):
    """Publish a scan, the phantom standing in for each kind of image but those to ``replace``."""
    correction = dict.fromkeys(
        ("method_version", "preset", "parameters", "weights_sha256", "device", "seed", "scaled_over", "intensities"),
        "x",
    )
    correction |= {"method": "n4", "runtime_s": {"estimate": 1.5}, "warnings": [], "mask_resampled": False}
    correction |= {"field": {}, "estimate": {}, "software": {}, "in_sha256": files.sha256(job.source)}
    correction["gate"] = {"verdict": "accepted", "applied": "n4"}
    metrics = {"own_before": {}, "own_after": {}, "field": {}, "undefined": {}}
    records = {"correction": correction, "metrics": metrics, **(records or {})}
    return publish(
        job,
        outputs,
        plan.settings.out_dir / "n4",
        dict.fromkeys(kinds, phantom_file) | (replace or {}),
        records,
        metrics_record(job, records),
        **{
            "key": plan.keys[job.relative, "n4"],
            "run_id": "first",
            "settings": plan.works[job.relative, "n4"],
            **options,
        },
    )
