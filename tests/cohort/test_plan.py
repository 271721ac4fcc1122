"""What is left to do of a cohort: choices, keys, problems, and folders that cannot be used."""

import json
import shutil

import pytest
from tiny_cohort import DESCRIPTION, implementation, relatives, settings

from biascorr_pydra import bids
from biascorr_pydra.cohort import correction, key_of, plan_correction, status
from biascorr_pydra.correction.options import CorrectionOptions
from biascorr_pydra.errors import InvalidParameterError, OutputError, OutputExistsError
from biascorr_pydra.methods.spec import MethodSpec


def pending(plan):
    return [(job.relative, [str(spec) for spec in specs]) for job, specs in plan.tasks]


def test_nothing_is_pending_once_published(published):
    again = plan_correction(published.settings, implementation)
    assert pending(again) == []
    assert {row.state for row in status.expected(again)} == {"cached"}
    assert {row.state for row in status.collect(published, {}, "first")} == {"done"}


def test_rerun_takes_everything_as_pending(published):
    assert len(plan_correction(published.settings, implementation, rerun=True).pending) == 5


def test_what_is_missing_truncated_or_changed_is_pending_again(published, tiny):
    files = [bids.output_paths(job, published.settings.out_dir / "n4") for job in published.jobs]
    files[0]["bias"].unlink()
    files[1]["corrected"].write_bytes(files[1]["corrected"].read_bytes()[:-10])
    files[2]["metrics"].write_text("{")
    changed = tiny / published.jobs[3].relative
    changed.write_bytes(changed.read_bytes() + b"\0")
    files[4]["bias"].write_bytes(files[4]["bias"].read_bytes() + b"\0")
    left = pending(plan_correction(published.settings, implementation))
    assert [name for name, _ in left] == relatives(published.jobs)


@pytest.mark.parametrize(
    "change",
    [
        {"methods": (MethodSpec("n4"), MethodSpec("n4", "antspy"))},
        {"options": CorrectionOptions(seed=1)},
        {"skull_strip": "none"},
        {"segmentation": "kmeans"},
        {"options": CorrectionOptions(gate=False)},
        {"options": CorrectionOptions(fallback="n4")},
        {"options": CorrectionOptions(check_response=True)},  # not offered by the workflows yet
    ],
)
def test_other_choices_are_other_work(published, change):
    chosen = settings(published.settings.bids_dir, published.settings.out_dir, **change)
    left = pending(plan_correction(chosen, implementation))
    assert len(left) == 5
    # a method that is added leaves the finished one alone
    assert left[0][1] == (["n4:antspy"] if "methods" in change else ["n4"])


def test_another_version_of_the_method_is_other_work(published):
    later = plan_correction(published.settings, lambda method, preset: f"{method} {preset} version 2")
    assert len(later.pending) == 5


def test_the_methods_implementation_is_in_the_key_also_where_nothing_is_segmented(tiny, tmp_path):
    before = keys(tiny, tmp_path, segmentation="none")
    later = keys(tiny, tmp_path, lambda method, preset: f"{method} {preset} version 2", segmentation="none")
    assert len(changed(before, later)) == 5


@pytest.mark.parametrize("name", bids.GROUP_FILES)
def test_group_files_that_are_not_ours_are_refused(tiny, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("precious")
    with pytest.raises(OutputExistsError, match=f"{name}: the file was not written by biascorr_pydra.*--overwrite"):
        plan_correction(settings(tiny, tmp_path / "out"), implementation)
    assert plan_correction(settings(tiny, tmp_path / "out", overwrite=True), implementation).pending


def test_output_folders_that_cannot_be(tiny, tmp_path):
    with pytest.raises(OutputError, match="is the input data set"):
        plan_correction(settings(tiny, tiny), implementation)
    named = MethodSpec(tiny.name)  # its data set would be the input
    with pytest.raises(OutputError, match="is the input data set"):
        plan_correction(settings(tiny, tiny.parent, methods=(named,)), implementation)
    with pytest.raises(OutputError, match=r"belongs under derivatives/.*derivatives/results"):
        plan_correction(settings(tiny, tiny / "results"), implementation)
    assert plan_correction(settings(tiny, tiny / "derivatives" / "results"), implementation).pending
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="under a file"):
        plan_correction(settings(tiny, tmp_path / "file/out"), implementation)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"skull_strip": "spoon"}, "--skull-strip.*deepbet"),
        ({"segmentation": "fast"}, "--segmentation.*atropos"),
        ({"methods": ()}, "at least one"),
        ({"methods": (MethodSpec("n4"), MethodSpec("n4"))}, "once"),
        ({"skull_strip": "given"}, "--derivatives"),
        ({"methods": (MethodSpec("judge"),)}, "uses for something else"),
        ({"methods": (MethodSpec("acquired"),)}, "uses for something else"),
    ],
)
def test_wrong_choices(tiny, tmp_path, choices, words):
    with pytest.raises(InvalidParameterError, match=words):
        settings(tiny, tmp_path, **choices)


def test_planning_touches_nothing(tiny, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    plan_correction(settings(tiny, tmp_path / "out"), implementation)
    assert sorted(tmp_path.rglob("*")) == before


# --- the key: each thing that a result depends on, changed by itself


def keys(tiny, tmp_path, implement=implementation, **choices):
    return plan_correction(settings(tiny, tmp_path / "out", **choices), implement).keys


def changed(before, after):
    assert set(before) == set(after)
    return sorted({scan for (scan, method), key in before.items() if after[scan, method] != key})


T1W, T2W = (f"sub-01/ses-a/anat/sub-01_ses-a_{suffix}.nii.gz" for suffix in ("T1w", "T2w"))


def test_nothing_changed_is_the_same_key(tiny, tmp_path):
    assert keys(tiny, tmp_path) == keys(tiny, tmp_path)
    assert keys(tiny, tmp_path) == keys(tiny, tmp_path, options=CorrectionOptions(device="cpu"))


def test_the_packages_version_is_in_the_key(tiny, tmp_path, monkeypatch):
    before = keys(tiny, tmp_path)
    monkeypatch.setattr(correction, "__version__", "0.0.0")
    assert len(changed(before, keys(tiny, tmp_path))) == 5


@pytest.mark.parametrize("package", ["antspyx", "deepbet"])
def test_the_versions_of_other_packages_are_in_the_key(tiny, tmp_path, monkeypatch, package):
    before, version = keys(tiny, tmp_path), correction.version
    monkeypatch.setattr(correction, "version", lambda name: "0" if name == package else version(name))
    assert len(changed(before, keys(tiny, tmp_path))) == 5


def test_the_contrast_is_in_the_key(tiny, tmp_path):
    (tiny / "T1w.json").unlink()  # else the sidecars tell the two apart
    assert (tiny / T1W).read_bytes() == (tiny / T2W).read_bytes()
    by_scan = keys(tiny, tmp_path)
    assert by_scan[T1W, "n4"] != by_scan[T2W, "n4"]


def test_what_sidecars_say_and_that_they_cannot_be_read_is_in_the_key(tiny, tmp_path):
    before = keys(tiny, tmp_path)
    (tiny / "T1w.json").write_text(json.dumps({"ImageType": ["ORIGINAL"]}))
    without_primary = keys(tiny, tmp_path)
    assert len(changed(before, without_primary)) == 3  # the fourth T1w has a nearer sidecar
    (tiny / "sub-01/sub-01_T1w.json").write_text("{")  # a warning, and the metadata as before
    assert changed(without_primary, keys(tiny, tmp_path)) == [T1W, T1W.replace("ses-a", "ses-b")]


def test_the_bytes_of_given_files_are_in_the_key_where_they_are_used(tiny, tmp_path):
    derivatives = tmp_path / "derivatives"
    mask = derivatives / T1W.replace("_T1w", "_desc-brain_mask")
    mask.parent.mkdir(parents=True)
    shutil.copy(tiny / T1W, mask)
    about = {**DESCRIPTION, "DatasetType": "derivative", "GeneratedBy": [{"Name": "hand"}]}
    (derivatives / "dataset_description.json").write_text(json.dumps(about))
    used = {"derivatives": derivatives, "skull_strip": "given"}
    with_mask, without = keys(tiny, tmp_path, **used), keys(tiny, tmp_path, derivatives=derivatives)
    plan = plan_correction(settings(tiny, tmp_path / "out", **used), implementation)
    assert plan.problems.keys() == {job.relative for job in plan.jobs if job.relative != T1W}
    assert all("no mask of this scan was found" in problem for problem in plan.problems.values())
    assert relatives(job for job, _ in plan.pending) == [T1W]
    content = mask.read_bytes()
    mask.unlink()
    mask.symlink_to("nowhere")
    absent = plan_correction(settings(tiny, tmp_path / "out", **used), implementation)
    assert str(mask) in absent.problems[T1W] and "datalad get" in absent.problems[T1W]
    mask.unlink()
    mask.write_bytes(content)
    mask.write_bytes(mask.read_bytes() + b"\0")
    assert changed(with_mask, keys(tiny, tmp_path, **used)) == [T1W]
    assert changed(without, keys(tiny, tmp_path, derivatives=derivatives)) == []
    other = plan_correction(settings(tiny, tmp_path / "out", **used), implementation)
    assert other.contents[T1W] != plan.contents[T1W] and other.sources == plan.sources


def test_the_method_is_in_the_key_whatever_its_implementation_says(tiny, tmp_path):
    methods = (MethodSpec("n4"), MethodSpec("n4", "antspy"))
    two = keys(tiny, tmp_path, lambda method, preset: "as ever", methods=methods, segmentation="none")
    assert two[T1W, "n4"] != two[T1W, "n4_antspy"]


def test_a_methods_work_is_the_same_beside_another_one(tiny, tmp_path):
    alone, both = keys(tiny, tmp_path), keys(tiny, tmp_path, methods=(MethodSpec("n4"), MethodSpec("ubc")))
    assert alone[T1W, "n4"] == both[T1W, "n4"] != both[T1W, "ubc"]


def test_the_weights_that_segment_are_in_the_key(tiny, tmp_path, monkeypatch):
    before = {choice: keys(tiny, tmp_path, segmentation=choice) for choice in ("deepnormalize", "atropos")}
    monkeypatch.setattr(correction.weights, "sha256_of", lambda name: "other weights")
    assert len(changed(before["deepnormalize"], keys(tiny, tmp_path, segmentation="deepnormalize"))) == 5
    assert changed(before["atropos"], keys(tiny, tmp_path, segmentation="atropos")) == []


def test_another_image_is_another_content(published, tiny):
    scan = published.jobs[0].relative
    (tiny / scan).write_bytes((tiny / scan).read_bytes() + b"\0")
    again = plan_correction(published.settings, implementation)
    assert again.contents[scan] != published.contents[scan] and again.sources[scan] != published.sources[scan]
    assert {s: c for s, c in again.contents.items() if s != scan} == {
        s: c for s, c in published.contents.items() if s != scan
    }


def test_the_order_in_which_things_are_named_is_not_in_the_key():
    assert key_of({"a": 1, "b": {"c": 2, "d": 3}}) == key_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})


# --- problems


def test_absent_content_and_twins_are_problems_and_nothing_else_is(tiny, tmp_path):
    (tiny / T2W).unlink()
    (tiny / T2W).symlink_to(tmp_path / "annex/SHA256-x")
    shutil.copy(tiny / T1W, tiny / T1W.removesuffix(".gz"))
    plan = plan_correction(settings(tiny, tmp_path / "out"), implementation)
    assert set(plan.problems) == {T1W, T1W.removesuffix(".gz"), T2W}
    assert "datalad get" in plan.problems[T2W]
    assert plan.problems[T1W] == plan.problems[T1W.removesuffix(".gz")]
    assert T1W in plan.problems[T1W] and "the same scan to BIDS" in plan.problems[T1W]
    assert not set(plan.problems) & set(relatives(job for job, _ in plan.pending))


def test_done_is_done_by_one_run(published):
    job = published.jobs[0]
    assert published.is_done(job, "n4") and published.is_done(job, "n4", "first")
    assert not published.is_done(job, "n4", "second")
