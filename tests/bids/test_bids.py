"""Indexing, names, given derivatives, the plan and publishing, on small trees made here."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from biascorr_pydra import bids
from biascorr_pydra.bids import CORRECTED, Job
from biascorr_pydra.cohort import Settings, plan_correction, publish, status
from biascorr_pydra.cohort.publish import metrics_record
from biascorr_pydra.errors import BIDSError, InvalidParameterError, OutputError, OutputExistsError
from biascorr_pydra.images import files, nifti
from biascorr_pydra.methods.spec import MethodSpec

DESCRIPTION = {"Name": "tiny", "BIDSVersion": "1.11.0", "License": "CC0"}


@pytest.fixture
def dataset(tmp_path, phantom):
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


def relatives(jobs):
    return [job.relative for job in jobs]


def test_every_anatomical_image_is_indexed_in_order(dataset):
    jobs = bids.index(dataset)
    assert relatives(jobs) == [
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-02/anat/sub-02_acq-fast_run-1_T1w.nii.gz",
        "sub-02/anat/sub-02_acq-fast_run-2_T1w.nii.gz",
    ]
    assert jobs[3].entities == (("sub", "02"), ("acq", "fast"), ("run", "1"))
    assert jobs[1].suffix == "T2w"


def test_selection_takes_labels_with_and_without_prefix(dataset):
    assert len(bids.index(dataset, participants=["sub-01"])) == 3
    assert relatives(bids.index(dataset, participants=["01"], sessions=["ses-b"]))[0].endswith("ses-b_T1w.nii.gz")
    assert [job.suffix for job in bids.index(dataset, suffixes=["T2w"])] == ["T2w"]


def test_a_scan_that_the_scanner_normalized_carries_a_warning(dataset):
    jobs = bids.index(dataset)
    assert [bool(job.warnings) for job in jobs] == [False, False, False, False, True]
    assert "NORM" in jobs[4].warnings[0]


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"participants": ["07"]}, r"no such participant.*07.*01, 02"),
        ({"sessions": ["z"]}, r"no such session.*a, b"),
        ({"suffixes": ["FLAIR"]}, r"no anatomical image matches.*FLAIR.*T1w"),
    ],
)
def test_selections_that_match_nothing(dataset, selection, words):
    with pytest.raises(BIDSError, match=words):
        bids.index(dataset, **selection)


def test_not_a_bids_data_set(dataset, tmp_path):
    with pytest.raises(BIDSError, match=r"nowhere: no such folder"):
        bids.index(tmp_path / "nowhere")
    (dataset / "dataset_description.json").write_text("{")
    with pytest.raises(BIDSError, match="not valid JSON"):
        bids.index(dataset)
    (dataset / "dataset_description.json").unlink()
    with pytest.raises(BIDSError, match=r"has a dataset_description.json.*Point to the root"):
        bids.index(dataset)


def test_output_names():
    t1w = Job(
        Path("/d/x"),
        "sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz",
        (("sub", "01"), ("ses", "a"), ("run", "2")),
        "T1w",
    )
    names = {kind: path.as_posix() for kind, path in bids.output_paths(t1w, "out/n4").items()}
    stem = "out/n4/sub-01/ses-a/anat/sub-01_ses-a_run-2"
    assert names == {
        "corrected": f"{stem}_desc-preproc_T1w.nii.gz",
        "bias": f"{stem}_desc-T1w_biasfield.nii.gz",
        "mask": f"{stem}_desc-brain_mask.nii.gz",
        "dseg": f"{stem}_dseg.nii.gz",
        "CSF": f"{stem}_label-CSF_probseg.nii.gz",
        "GM": f"{stem}_label-GM_probseg.nii.gz",
        "WM": f"{stem}_label-WM_probseg.nii.gz",
        "metrics": f"{stem}_desc-T1w_metrics.json",
    }
    t2w = Job(t1w.source, t1w.relative.replace("T1w", "T2w"), t1w.entities, "T2w")
    both = set(bids.output_paths(t1w, "o").values()) & set(bids.output_paths(t2w, "o").values())
    assert not both
    assert bids.output_paths(t2w, "o")["mask"].name == "sub-01_ses-a_run-2_space-T2w_desc-brain_mask.nii.gz"
    assert bids.sidecar(Path("a/b_T1w.nii.gz")) == Path("a/b_T1w.json")
    assert Job.from_dict(json.loads(json.dumps(t2w.as_dict()))) == t2w


def test_given_files_are_those_of_the_scans_own_grid(dataset, tmp_path):
    derivatives = tmp_path / "derivatives"
    folder = derivatives / "sub-01/ses-a/anat"
    folder.mkdir(parents=True)
    description = {**DESCRIPTION, "DatasetType": "derivative", "GeneratedBy": [{"Name": "hand"}]}
    (derivatives / "dataset_description.json").write_text(json.dumps(description))
    for ending in (
        "desc-brain_mask",
        "space-T2w_desc-brain_mask",
        "space-MNI152NLin2009cAsym_desc-brain_mask",
        "desc-lesion_mask",
        "dseg",
        "desc-aseg_dseg",
        "label-GM_probseg",
        "space-T2w_label-WM_probseg",
    ):
        (folder / f"sub-01_ses-a_{ending}.nii.gz").touch()
    t1w, t2w, other = bids.index(dataset, participants=["01"], derivatives=derivatives)
    named = lambda job: {kind: path.name for kind, path in job.given.items()}  # noqa: E731
    assert named(t1w) == {
        "mask": "sub-01_ses-a_desc-brain_mask.nii.gz",
        "dseg": "sub-01_ses-a_dseg.nii.gz",
        "GM": "sub-01_ses-a_label-GM_probseg.nii.gz",
    }
    assert named(t2w) == {
        "mask": "sub-01_ses-a_space-T2w_desc-brain_mask.nii.gz",
        "WM": "sub-01_ses-a_space-T2w_label-WM_probseg.nii.gz",
    }
    assert other.given == {}


# --- the plan and what was published


def settings(dataset, out_dir, **choices):
    choices = {"methods": (MethodSpec("n4"),), **choices}
    return Settings(bids_dir=dataset, out_dir=out_dir, **choices)


def implementation(method, preset):
    return f"{method} {preset} version 1"


def pending(plan):
    return [(job.relative, [str(spec) for spec in specs]) for job, specs in plan.tasks]


@pytest.fixture
def published(dataset, tmp_path, phantom_file):
    """A data set of which every scan has been published by n4."""
    chosen = settings(dataset, tmp_path / "out")
    plan = plan_correction(chosen, implementation)
    bids.prepare_dataset(tmp_path / "out/n4", dataset, "n4", "test")
    for job in plan.jobs:
        put(job, plan, phantom_file)
    return plan


def put(job, plan, phantom_file, **options):
    correction = dict.fromkeys(
        ("method_version", "preset", "parameters", "weights_sha256", "device", "seed", "scaled_over", "intensities"),
        "x",
    )
    correction |= {"method": "n4", "runtime_s": {"estimate": 1.5}, "warnings": [], "mask_resampled": False}
    correction |= {"field": {}, "estimate": {}, "software": {}, "in_sha256": files.sha256(job.source)}
    correction["gate"] = {"verdict": "accepted", "applied": "n4"}
    metrics = {"before": {}, "after": {}, "field": {}, "undefined": {}}
    records = {"correction": correction, "metrics": metrics}
    return publish(
        job,
        CORRECTED,
        plan.settings.out_dir / "n4",
        {"corrected": phantom_file, "bias": phantom_file},
        records,
        metrics_record(job, records),
        key=plan.keys[job.relative, "n4"],
        run_id="first",
        **options,
    )


def test_nothing_is_pending_once_published(published):
    again = plan_correction(published.settings, implementation)
    assert pending(again) == []
    assert {row.state for row in status.expected(again)} == {"cached"}
    assert {row.state for row in status.collect(published, {}, "first")} == {"done"}


def test_rerun_takes_everything_as_pending(published):
    assert len(plan_correction(published.settings, implementation, rerun=True).pending) == 5


def test_what_is_missing_truncated_or_changed_is_pending_again(published, dataset):
    files = [bids.output_paths(job, published.settings.out_dir / "n4") for job in published.jobs]
    files[0]["bias"].unlink()
    files[1]["corrected"].write_bytes(files[1]["corrected"].read_bytes()[:-10])
    files[2]["metrics"].write_text("{")
    changed = dataset / published.jobs[3].relative
    changed.write_bytes(changed.read_bytes() + b"\0")
    assert [name for name, _ in pending(plan_correction(published.settings, implementation))] == relatives(
        published.jobs[:4]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"methods": (MethodSpec("n4"), MethodSpec("n4", "antspy"))},
        {"seed": 1},
        {"skull_strip": "none"},
        {"segmentation": "kmeans"},
    ],
)
def test_other_choices_are_other_work(published, change):
    chosen = settings(published.settings.bids_dir, published.settings.out_dir, **change)
    found = pending(plan_correction(chosen, implementation))
    assert len(found) == 5
    # a method that is added leaves the finished one alone
    assert found[0][1] == (["n4:antspy"] if "methods" in change else ["n4"])


def test_another_version_of_the_method_is_other_work(published):
    later = plan_correction(published.settings, lambda method, preset: f"{method} {preset} version 2")
    assert len(later.pending) == 5


def test_status_gives_the_reason(published):
    job = published.jobs[1]
    bids.output_paths(job, published.settings.out_dir / "n4")["bias"].unlink()
    rows = status.collect(published, {(job.relative, "n4"): "ValueError: of\tsome\nkind"}, "first")
    assert [row.state for row in rows] == ["done", "failed", "done", "done", "done"]
    assert rows[1].reason == "ValueError: of some kind"
    lines = status.write(published.settings.out_dir, rows).read_text().splitlines()
    assert lines[0] == "scan\tmethod\tstate\treason"
    assert lines[2].split("\t") == [job.relative, "n4", "failed", "ValueError: of some kind"]


def test_publishing_never_replaces_what_is_not_ours(published, phantom_file):
    job = published.jobs[0]
    path = bids.output_paths(job, published.settings.out_dir / "n4")["corrected"]
    bids.sidecar(path).unlink()
    path.write_text("by hand")
    with pytest.raises(OutputExistsError, match=r"desc-preproc_T1w.nii.gz: the output exists and was not written by"):
        put(job, published, phantom_file)
    assert path.read_text() == "by hand"
    put(job, published, phantom_file, overwrite=True)
    assert path.read_bytes() == phantom_file.read_bytes()
    assert published.is_done(job, "n4")


def test_a_folder_that_is_not_ours_is_refused(dataset, tmp_path):
    (tmp_path / "out/n4").mkdir(parents=True)
    (tmp_path / "out/n4/thesis.txt").write_text("precious")
    with pytest.raises(OutputExistsError, match="not empty"):
        bids.prepare_dataset(tmp_path / "out/n4", dataset, "n4", "test")
    assert [p.name for p in (tmp_path / "out/n4").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", bids.GROUP_FILES)
def test_group_files_that_are_not_ours_are_refused(dataset, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("precious")
    with pytest.raises(OutputExistsError, match=f"{name}: the file was not written by biascorr_pydra.*--overwrite"):
        plan_correction(settings(dataset, tmp_path / "out"), implementation)
    assert plan_correction(settings(dataset, tmp_path / "out", overwrite=True), implementation).pending


def test_output_folders_that_cannot_be(dataset, tmp_path):
    with pytest.raises(OutputError, match="is the input data set"):
        plan_correction(settings(dataset, dataset), implementation)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="under a file"):
        plan_correction(settings(dataset, tmp_path / "file/out"), implementation)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"skull_strip": "spoon"}, "--skull-strip.*deepbet"),
        ({"segmentation": "fast"}, "--segmentation.*atropos"),
        ({"methods": ()}, "at least one"),
        ({"methods": (MethodSpec("n4"), MethodSpec("n4"))}, "once"),
        ({"skull_strip": "given"}, "--derivatives"),
    ],
)
def test_wrong_choices(dataset, tmp_path, choices, words):
    with pytest.raises(InvalidParameterError, match=words):
        settings(dataset, tmp_path, **choices)


def test_planning_touches_nothing(dataset, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    plan_correction(settings(dataset, tmp_path / "out"), implementation)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_derivative_data_set_says_where_it_comes_from(published, dataset):
    made = json.loads((published.settings.out_dir / "n4/dataset_description.json").read_text())
    assert made["DatasetType"] == "derivative" and made["GeneratedBy"][0]["Name"] == "biascorr_pydra"
    link = (published.settings.out_dir / "n4" / made["DatasetLinks"]["raw"]).resolve()
    assert link == dataset.resolve()
    paths = bids.output_paths(published.jobs[0], published.settings.out_dir / "n4")
    sources = json.loads(bids.sidecar(paths["corrected"]).read_text())
    assert sources["Sources"] == ["bids:raw:sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"]
    assert sources["SourceSHA256"] == files.sha256(dataset / published.jobs[0].relative)
    shutil.rmtree(published.settings.out_dir)
