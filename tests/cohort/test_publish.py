"""Finished files under their names: the record last, nothing foreign replaced, nothing stale left."""

import json
import shutil

import pytest
from tiny_cohort import put

from biascorr_pydra import bids
from biascorr_pydra.bids import CORRECTED
from biascorr_pydra.errors import OutputError, OutputExistsError


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


BRAIN = {"brain": {"Name": "template", "runtime_s": 2.0, "warnings": ["a thin brain"]}}
TISSUE = {"tissue": {"Name": "kmeans", "Image": "the scan", "runtime_s": 3.0}}


def paths_of(plan, job):
    return CORRECTED.paths(job, plan.out_dir / "n4")


def test_the_record_lists_the_files_and_tells_what_was_done(published, phantom_file):
    job = published.jobs[4]
    record = json.loads(put(job, published, phantom_file, ("corrected", "bias", "mask"), BRAIN | TISSUE).read_text())
    folder, size = "sub-02/anat/sub-02_acq-fast_run-2", phantom_file.stat().st_size
    settings = record["work"].pop("settings")
    assert settings["skull_strip"] == published.settings.skull_strip and settings["implementation"].startswith("n4 ")
    assert record["work"] == {
        "key": published.keys[job.relative, "n4"],
        "run_id": "first",
        "files": {
            f"{folder}_desc-preproc_T1w.nii.gz": size,
            f"{folder}_desc-T1w_biasfield.nii.gz": size,
            f"{folder}_desc-brain_mask.nii.gz": size,
        },
    }
    assert record["runtime_s"] == {"correct": 1.5, "skull_strip": 2.0, "segmentation": 3.0}
    assert record["skull_strip"] == "template" and record["segmentation"] == {"method": "kmeans", "image": "the scan"}
    assert record["entities"] == {"sub": "02", "acq": "fast", "run": "2"} and record["subject"] == "02"
    assert record["warnings"] == [*job.warnings, "a thin brain"] and "NORM" in record["warnings"][0]


@pytest.mark.parametrize("absent", ["corrected", "bias"])
def test_a_scan_of_which_a_file_could_not_be_published_is_not_done(published, phantom_file, tmp_path, absent):
    job = published.jobs[0]
    assert published.is_done(job, "n4")
    with pytest.raises(FileNotFoundError):
        put(job, published, phantom_file, replace={absent: tmp_path / "nowhere"})
    assert not published.is_done(job, "n4") and not paths_of(published, job)["metrics"].exists()


def test_what_an_earlier_choice_left_goes_with_its_sidecar_and_what_is_foreign_stays(published, phantom_file):
    job = published.jobs[0]
    put(job, published, phantom_file, ("corrected", "bias", "mask", "dseg"), BRAIN | TISSUE)
    paths = paths_of(published, job)
    assert paths["mask"].exists() and paths["dseg"].exists()
    bids.sidecar(paths["dseg"]).unlink()  # nobody's now
    put(job, published, phantom_file)
    assert not paths["mask"].exists() and not bids.sidecar(paths["mask"]).exists()
    assert paths["dseg"].exists() and paths["corrected"].exists()


def test_a_refusal_comes_before_anything_is_touched(published, phantom_file):
    job = published.jobs[0]
    paths = paths_of(published, job)
    bids.sidecar(paths["bias"]).unlink()  # the last of the files
    before = {path: path.stat().st_mtime_ns for path in paths.values() if path.exists()}
    with pytest.raises(OutputExistsError):
        put(job, published, phantom_file)
    assert {path: path.stat().st_mtime_ns for path in paths.values() if path.exists()} == before
    assert published.is_done(job, "n4")


@pytest.mark.parametrize(("odd", "words"), [("folder", "cannot be made"), ("record", "cannot be removed")])
def test_what_the_system_refuses_is_named(published, phantom_file, odd, words):
    job = published.jobs[0]
    record = paths_of(published, job)["metrics"]
    shutil.rmtree(published.out_dir / "n4/sub-01")
    if odd == "folder":
        (published.out_dir / "n4/sub-01").write_text("")
    else:
        record.mkdir(parents=True)
    with pytest.raises(OutputError, match=words):
        put(job, published, phantom_file)


def test_a_published_file_is_a_copy(published, phantom_file):
    path = paths_of(published, published.jobs[0])["corrected"]
    path.write_bytes(b"edited")
    assert phantom_file.read_bytes() != b"edited"
