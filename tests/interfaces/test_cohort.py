"""The cohort workflow on a small data set: outputs, caching, failures, on the debug and lanes workers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from forked import PYDRA, program
from small_cohort import SCANS, WITHOUT, WORKFLOW, run, states

from biascorr_pydra.images import files, nifti
from biascorr_pydra.metrics import cjv, residual_cov


def judge_record(out, scan):
    return json.loads(Path(str(out / "judge" / scan).replace("T1w.nii.gz", "desc-T1w_judge.json")).read_text())


@pytest.mark.parametrize("worker", ["debug", "lanes"])
def test_the_whole_path(dataset, phantoms, worker):
    done = run(dataset, "--scan-pages", worker=worker)
    assert done.returncode == 0, done.stderr
    out = dataset.parent / "out"
    assert len(list((out / "reports").glob("sub-*.html"))) == 3
    assert f"Report:  {out}/report.html" in done.stdout and (out / "report.html").stat().st_size > 10_000
    assert "corrected 3 of 3" in done.stderr
    assert states(dataset) == ["done"] * 3
    for scan, phantom in zip(SCANS, phantoms, strict=True):
        stem = str(out / "n4" / scan).removesuffix("_T1w.nii.gz")
        bias = nifti.load(f"{stem}_desc-T1w_biasfield.nii.gz").get_fdata()
        corrected = nifti.load(f"{stem}_desc-preproc_T1w.nii.gz").get_fdata()
        np.testing.assert_allclose(corrected * bias, phantom.acquired, rtol=1e-4, atol=1e-2)
        before = residual_cov(np.ones_like(bias), phantom.bias, phantom.brain)
        assert residual_cov(bias, phantom.bias, phantom.brain) < 0.5 * before
        record = json.loads(Path(f"{stem}_desc-T1w_metrics.json").read_text())
        assert record["own_before"]["cjv"] == pytest.approx(
            cjv(phantom.acquired, phantom.dseg == 1, phantom.dseg == 2), rel=1e-5
        )
        assert record["own_after"]["cjv"] < record["own_before"]["cjv"]
        judged = judge_record(out, scan)
        assert judged["judged"] == {"n4": record["work"]["key"]}
        assert judged["work"]["run_id"] == record["work"]["run_id"]
        assert [pair["verdict"] for pair in judged["pairs"]] == ["n4"], judged["reason"]
        sidecar = json.loads(Path(f"{stem}_desc-preproc_T1w.json").read_text())
        assert sidecar["SourceSHA256"] == files.sha256(dataset / scan)
        assert sidecar["Method"]["Name"] == "n4" and sidecar["SkullStripped"] is False
    table = (out / "metrics.tsv").read_text().splitlines()
    assert len(table) == 4


def test_the_validator_accepts_what_is_written(dataset):
    assert run(dataset).returncode == 0
    validator = shutil.which("bids-validator-deno") or Path(sys.executable).parent / "bids-validator-deno"
    for folder in ("n4", "judge"):
        command = [validator, "--ignoreWarnings", str(dataset.parent / "out" / folder)]
        validated = subprocess.run(command, capture_output=True, text=True)
        assert validated.returncode == 0, validated.stdout + validated.stderr


def test_a_second_run_computes_nothing_and_a_changed_scan_only_itself(dataset, phantoms):
    run(dataset)
    out = dataset.parent / "out/n4"
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")}
    again = run(dataset)
    assert "0 done, 3 done before, 0 failed" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.nii.gz")} == times
    nifti.save(phantoms[1].image(phantoms[1].acquired * 2), dataset / SCANS[1])
    changed = run(dataset)
    assert "1 done, 2 done before, 0 failed" in changed.stdout
    moved = {path.parts[-3] for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert moved == {"sub-02"}
    sidecar = json.loads((out / "sub-02/anat/sub-02_desc-preproc_T1w.json").read_text())
    assert sidecar["SourceSHA256"] == files.sha256(dataset / SCANS[1])


def test_a_deleted_output_comes_back_with_and_without_the_work_folder(dataset):
    run(dataset)
    path = dataset.parent / "out/n4/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"
    content = path.read_bytes()
    for also in (None, dataset.parent / "out/work"):
        path.unlink()
        if also:
            shutil.rmtree(also)
        assert "1 done, 2 done before, 0 failed" in run(dataset).stdout
        assert path.read_bytes() == content


def spoil(kind, path, phantom):
    if kind == "truncated":
        nifti.save(phantom.image(), path)
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "not a NIfTI":
        path.write_bytes(b"hello")
    else:
        values = {
            "empty": np.zeros(phantom.acquired.shape),
            "constant": np.ones(phantom.acquired.shape),
            "all NaN": np.full(phantom.acquired.shape, np.nan),
            "4-D": np.stack([phantom.acquired] * 2, -1),
            "2-D": phantom.acquired[:, :, 10],
        }[kind]
        nifti.save(phantom.image(values), path)


WORDS = {
    "truncated": "UnreadableImageError: {}: not a complete gzip file",
    "not a NIfTI": "UnreadableImageError: {}: not a complete gzip file",
    "empty": "InvalidImageError: {}: all voxels have the same value",
    "constant": "InvalidImageError: {}: all voxels have the same value",
    "all NaN": "InvalidImageError: {}: no voxel has a finite value",
    "4-D": "InvalidImageError: {}: a 3-D image is needed",
    "2-D": "InvalidImageError: {}: a 3-D image is needed",
}


@pytest.mark.parametrize("worker", ["debug", "lanes"])
def test_bad_scans_are_named_and_the_others_go_on(dataset, phantoms, worker):
    bad = {f"sub-bad{i}/anat/sub-bad{i}_T1w.nii.gz": kind for i, kind in enumerate(WORDS)}
    for scan, kind in bad.items():
        (dataset / scan).parent.mkdir(parents=True)
        spoil(kind, dataset / scan, phantoms[0])
    done = run(dataset, *WITHOUT, worker=worker)
    assert done.returncode == 1
    assert f"3 done, 0 done before, {len(bad)} failed." in done.stdout
    for scan, kind in bad.items():
        assert f"FAILED  {scan}  n4\n        {WORDS[kind].format(dataset / scan)}" in done.stderr
        assert not list((dataset.parent / "out/n4" / scan).parent.rglob("*.nii.gz"))
    assert "Traceback" not in done.stderr
    assert states(dataset) == ["done"] * 3 + ["failed"] * len(bad)
    nifti.save(phantoms[0].image(), dataset / next(iter(bad)))
    again = run(dataset, *WITHOUT, worker=worker)
    assert f"1 done, 3 done before, {len(bad) - 1} failed" in again.stdout


@pytest.mark.parametrize("worker", ["debug", "lanes"])
def test_masks_that_cannot_be_used_fail_their_scan_only(dataset, phantoms, worker):
    masks = [dataset.parent / "truth" / scan.replace("_T1w", "_desc-brain_mask") for scan in SCANS]
    nifti.save(phantoms[0].image(np.zeros_like(phantoms[0].brain), np.uint8), masks[0])
    masks[1].unlink()
    done = run(dataset, worker=worker)
    assert done.returncode == 1 and states(dataset) == ["failed", "failed", "done"]
    assert f"{masks[0]}: the mask is empty" in done.stderr
    assert "no mask of this scan was found" in run(dataset, "--dry-run").stdout
    assert SCANS[1] in done.stderr and "--derivatives" in done.stderr


@pytest.mark.parametrize("worker", ["debug", "lanes"])
def test_what_was_corrected_and_not_judged_is_judged_by_the_next_run(dataset, worker):
    run(dataset, worker=worker)
    out = dataset.parent / "out"
    before = [judge_record(out, scan) for scan in SCANS]
    shutil.rmtree(out / "judge/sub-02")
    again = run(dataset, worker=worker)
    assert "0 done, 3 done before" in again.stdout and "judged" not in again.stderr  # on the worker, not in the report
    after = [judge_record(out, scan) for scan in SCANS]
    assert after[1]["work"]["run_id"] != before[1]["work"]["run_id"] == after[0]["work"]["run_id"]
    assert [record["images"] for record in after] == [record["images"] for record in before]


@pytest.mark.slow
def test_one_failing_method_does_not_stop_the_other(dataset):
    foreign = dataset.parent / "out/n4_antspy/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"
    run(dataset, "--method", "n4", "--method", "n4:antspy", "--participant-label", "02")
    foreign.parent.mkdir(parents=True)
    foreign.write_text("by hand")
    done = run(dataset, "--method", "n4", "--method", "n4:antspy")
    assert done.returncode == 1
    assert states(dataset) == ["done", "failed", "cached", "cached", "done", "done"]
    assert "was not written by biascorr_pydra" in done.stderr and foreign.read_text() == "by hand"
    # The judge compares what there is of each scan.
    out, compared = dataset.parent / "out", {"n4", "n4_antspy"}
    assert [set(judge_record(out, scan)["judged"]) for scan in SCANS] == [{"n4"}, compared, compared]


def test_dry_run_prints_the_plan_and_touches_nothing(dataset):
    before = sorted(dataset.parent.rglob("*"))
    done = run(dataset, "--dry-run", "--participant-label", "02")
    assert done.returncode == 0, done.stderr
    assert f"{SCANS[1]}  n4  to do" in done.stdout and SCANS[0] not in done.stdout
    assert "1 scans, 1 method(s): 1 to do" in done.stdout
    assert sorted(dataset.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "n5"), "'n5'"),
        (("--method", "n4:best"), "'best'"),
        (("--suffix", "FLAIR"), "no anatomical image matches"),
        (("--participant-label", "99"), "no such participant"),
        (("--skull-strip", "spoon"), "unknown --skull-strip"),
        (("--n-procs", "0"), "0"),
        (("--device", "gpu"), "option device is one of auto, cpu, cuda"),
        (("--device", "cuda"), "no CUDA device is available"),
        (("--no-such-option",), "No such option"),
    ],
)
def test_wrong_use_exits_with_2_and_touches_nothing(dataset, arguments, words):
    done = run(dataset, *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (dataset.parent / "out").exists()


def test_no_data_set_description(dataset):
    (dataset / "dataset_description.json").unlink()
    done = run(dataset)
    assert done.returncode == 2 and "has a dataset_description.json in its root" in done.stderr


def test_unwritable_output_folder(dataset):
    (dataset.parent / "out").write_text("a file is in the way")
    done = run(dataset)
    assert done.returncode == 2 and "under a file" in done.stderr
    assert (dataset.parent / "out").read_text() == "a file is in the way"


def test_rerun_computes_everything_again_and_gives_the_same_bytes(dataset):
    run(dataset)
    path = dataset.parent / "out/n4/sub-01/anat/sub-01_desc-T1w_biasfield.nii.gz"
    content, time = path.read_bytes(), path.stat().st_mtime_ns
    assert "3 done, 0 done before" in run(dataset, "--rerun").stdout
    assert path.read_bytes() == content and path.stat().st_mtime_ns != time


def test_under_pytest_with_the_debug_worker(dataset):
    from biascorr_pydra.interfaces.pydra.cohort import CorrectBids

    task = CorrectBids(
        bids_dir=dataset,
        out_dir=dataset.parent / "out",
        method=["n4"],
        skull_strip="none",
        segmentation="none",
        suffix=["T1w"],
    )
    outputs = task(worker="debug", cache_root=dataset.parent / "cache")
    assert Path(outputs.report_file).is_file()
    corrected = nib.load(dataset.parent / "out/n4/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz")
    assert corrected.shape == (32, 36, 30)
    metrics = json.loads((dataset.parent / "out/n4/sub-01/anat/sub-01_desc-T1w_metrics.json").read_text())
    assert metrics["own_after"]["cjv"] is None
    assert metrics["undefined"]["own_before.cjv"] == "no tissue segmentation was asked for"


def test_changed_bytes_with_the_old_time_recompute(dataset, phantoms):
    run(dataset, *WITHOUT)
    scan = dataset / SCANS[0]
    modified = scan.stat().st_mtime_ns
    nifti.save(phantoms[0].image(phantoms[0].acquired * 3), scan)
    os.utime(scan, ns=(modified, modified))  # as rsync -t or cp -p leave it
    assert "1 done, 2 done before" in run(dataset, *WITHOUT).stdout
    stem = dataset.parent / "out/n4/sub-01/anat/sub-01_"
    corrected = nifti.load(f"{stem}desc-preproc_T1w.nii.gz").get_fdata()
    bias = nifti.load(f"{stem}desc-T1w_biasfield.nii.gz").get_fdata()
    np.testing.assert_allclose(corrected * bias, phantoms[0].acquired * 3, rtol=1e-4, atol=1e-2)


def test_rerun_does_not_call_done_what_it_did_not_do(dataset):
    run(dataset, *WITHOUT)
    stem = dataset.parent / "out/n4/sub-01/anat/sub-01_desc-preproc_T1w"
    Path(f"{stem}.json").unlink()  # the image beside it is nobody's now, and must not be replaced
    again = run(dataset, *WITHOUT, "--rerun")
    assert again.returncode == 1 and "2 done, 0 done before, 1 failed" in again.stdout
    assert "was not written by biascorr_pydra" in again.stderr


@pytest.mark.parametrize("worker", ["debug", "lanes"])
def test_broken_links_bad_sidecars_and_twins_fail_alone(dataset, worker):
    (dataset / SCANS[0]).unlink()
    (dataset / SCANS[0]).symlink_to(dataset.parent / ".git/annex/objects/SHA256-x")
    (dataset / SCANS[1].replace(".nii.gz", ".json")).write_text("{not json")
    twin = dataset / SCANS[2].removesuffix(".gz")
    nifti.save(nifti.load(dataset / SCANS[2]), twin)
    done = run(dataset, *WITHOUT, worker=worker)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert states(dataset) == ["failed", "done", "failed", "failed"]
    assert "datalad get" in done.stderr and "the same scan to BIDS. Remove one." in done.stderr
    metrics = json.loads((dataset.parent / "out/n4/sub-02/anat/sub-02_desc-T1w_metrics.json").read_text())
    assert any("sub-02_T1w.json cannot be read" in warning for warning in metrics["warnings"])


def test_a_link_to_an_object_without_a_suffix_is_read(dataset):
    target = dataset.parent / "SHA256-abc"
    (dataset / SCANS[0]).rename(target)
    (dataset / SCANS[0]).symlink_to(target)
    assert run(dataset, *WITHOUT, "--participant-label", "01").returncode == 0


@pytest.mark.parametrize("worker", ["debug", "lanes"])
def test_an_interrupted_run_goes_on_where_it_was(dataset, worker):
    code = "from biascorr_pydra.interfaces.pydra.run import main; main()"
    inputs = ["--bids-dir", str(dataset), "--out-dir", str(dataset.parent / "out"), "--worker", worker, *WITHOUT]
    slow = [
        "--method",
        "n4",
        "--method",
        "ants-n4",
        "--no-gate",
        "--no-scan-pages",
    ]  # long enough to be caught in the middle
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", str(WORKFLOW), *inputs, *slow],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where this suite runs in the background of a shell, it has been told to ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    work = dataset.parent / "out/work"
    deadline = time.monotonic() + 60
    while not list(work.glob("python-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "Run the same command again" in errors
    again = run(dataset, *WITHOUT, *slow, worker=worker)
    assert again.returncode == 0, again.stderr
    assert set(states(dataset)) <= {"done", "cached"}


@pytest.mark.slow
def test_what_an_earlier_choice_left_does_not_stay(dataset):
    run(dataset)
    folder = dataset.parent / "out/n4/sub-01/anat"
    assert (folder / "sub-01_desc-brain_mask.nii.gz").exists() and (folder / "sub-01_dseg.json").exists()
    run(dataset, *WITHOUT)
    assert not list(folder.glob("*mask*")) and not list(folder.glob("*dseg*"))


def test_the_status_of_other_scans_is_kept(dataset):
    run(dataset, *WITHOUT, "--participant-label", "02")
    run(dataset, *WITHOUT, "--participant-label", "01")
    lines = (dataset.parent / "out/status.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines[1:]] == SCANS[:2]


def test_an_output_folder_among_the_data_is_refused_and_derivatives_is_not(dataset):
    base = [PYDRA, "run", WORKFLOW, "--bids-dir", dataset, "--worker", "debug", *WITHOUT, "--method", "n4"]
    refused = program(*base, "--out-dir", dataset / "results")
    assert refused.returncode == 2 and "derivatives" in refused.stderr and not (dataset / "results").exists()
    for _ in range(2):
        done = program(*base, "--out-dir", dataset / "derivatives/b")
        assert done.returncode == 0, done.stderr
    assert "0 done, 3 done before" in done.stdout


def test_relative_paths_in_python_are_refused(dataset, monkeypatch):
    from biascorr_pydra.interfaces.pydra.cohort import CorrectBids

    monkeypatch.chdir(dataset.parent)
    with pytest.raises(Exception, match="bids_dir must be an absolute path"):
        CorrectBids(bids_dir="raw", out_dir="out")(worker="debug", cache_root=dataset.parent / "cache")


def test_a_given_mask_of_another_grid_is_said_to_be_resampled(dataset, phantoms):
    mask = dataset.parent / "truth" / SCANS[0].replace("_T1w", "_desc-brain_mask")
    fine = phantoms[0].affine @ np.diag([0.5, 1, 1, 1])
    fine[:3, 3] -= phantoms[0].affine[:3, 0] / 4
    nifti.save(nib.Nifti1Image(np.repeat(phantoms[0].brain, 2, axis=0).astype(np.uint8), fine), mask)
    assert run(dataset, "--participant-label", "01").returncode == 0
    sidecar = json.loads((dataset.parent / "out/n4/sub-01/anat/sub-01_desc-preproc_T1w.json").read_text())
    assert sidecar["MaskResampled"] is True and any("resampled" in warning for warning in sidecar["Warnings"])
