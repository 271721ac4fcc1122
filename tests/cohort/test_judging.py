"""Records of the judge, from what methods have published: with the fields known, and whatever is published when."""

import json
import threading

import nibabel as nib
import numpy as np
import pytest
from judged_cohort import T1W, job_of

from biascorr_pydra import bids
from biascorr_pydra.cohort import judging
from biascorr_pydra.cohort.judging import judge_rest, judge_scan, unjudged
from biascorr_pydra.errors import OutputError, UnreadableImageError
from biascorr_pydra.images import nifti
from biascorr_pydra.images.files import sha256
from biascorr_pydra.metrics import image_metrics
from biascorr_pydra.report.collect import collect


def read(path):
    return json.loads(path.read_text())


def judged(delivery, scan=T1W):
    return read(judge_scan(delivery.out, job_of(scan)))


def verdicts(record):
    return {(pair["first"], pair["second"]): pair["verdict"] for pair in record["pairs"]}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_order_of_the_true_fields_is_the_judges(delivery, phantom):
    delivery.put("true", phantom.bias)
    delivery.put("half", phantom.bias**0.5)
    delivery.put("wrong", 1 / phantom.bias)
    record = judged(delivery)
    assert verdicts(record) == {
        ("acquired", "half"): "half",
        ("acquired", "true"): "true",
        ("acquired", "wrong"): "acquired",
        ("half", "true"): "true",
        ("half", "wrong"): "half",
        ("true", "wrong"): "true",
    }
    assert record["judged"] == {"half": "half 1", "true": "true 1", "wrong": "wrong 1"}
    assert record["left_out"] == record["not_compared"] == {} and record["reason"] is None
    for pair in record["pairs"]:
        for change, low, high in pair["changes"].values():
            assert low <= change <= high


def test_the_numbers_are_those_of_the_images_on_the_tissue_that_is_published(delivery, phantom):
    delivery.put("n4", phantom.bias)
    record = judged(delivery)
    path = bids.JUDGED.paths(job_of(), delivery.out / "judge")["dseg"]
    tissue = nib.load(path)
    assert path.name == "sub-01_desc-judge_dseg.nii.gz" and tissue.get_data_dtype() == np.uint8
    # Voxels of 4 mm are left as they are, and the grid is the box of the brain: its voxels lie on the phantom's.
    start = np.rint(np.linalg.inv(phantom.affine) @ tissue.affine[:, 3])[:3].astype(int)
    box = tuple(slice(begin, begin + n) for begin, n in zip(start, tissue.shape, strict=True))
    labels = np.asarray(tissue.dataobj)
    assert record["voxels"] == {"WM": int((labels == 2).sum()), "GM": int((labels == 1).sum())}
    assert set(np.unique(labels)) == {0, 1, 2} and (phantom.dseg[box][labels > 0] == labels[labels > 0]).mean() > 0.99
    acquired = image_metrics(phantom.acquired[box], labels == 1, labels == 2, voxel_size_mm=(4, 4, 4))
    for name in ("cjv", "cv_wm", "cv_gm", "wm_gm_contrast", "tissue_unevenness"):
        assert record["images"]["acquired"][name] == pytest.approx(acquired[name], rel=1e-5)
    assert record["grid_mm"] == [4, 4, 4] and record["source"] == f"bids:raw:{T1W}"


def test_a_rejected_field_is_left_out_and_changes_nothing(delivery, phantom):
    delivery.put("n4", phantom.bias)
    before = judged(delivery)
    delivery.put("ubc", 1.0, verdict="rejected")
    record = judged(delivery)
    assert record["left_out"] == {"ubc": "rejected by the gate: delivered as acquired"}
    assert "ubc" not in record["judged"] and set(record["images"]) == {"acquired", "n4"}
    assert record["images"] == before["images"] and record["pairs"] == before["pairs"]


def test_where_every_field_was_rejected_the_acquired_image_is_measured_alone(delivery):
    delivery.put("n4", 1.0, verdict="rejected")
    record = judged(delivery)
    assert list(record["images"]) == ["acquired"] and record["images"]["acquired"]["cjv"] > 0 and not record["pairs"]


@pytest.fixture
def acquired_of(delivery, monkeypatch):
    """Judges a scan; what the judge was given as acquired, or None."""
    given = []
    judge = judging.judge_images

    def watched(images, *arguments, **options):
        given.append(images["acquired"] if "acquired" in list(images) else None)
        return judge(images, *arguments, **options)

    monkeypatch.setattr(judging, "judge_images", watched)
    return lambda: (judged(delivery), given.pop())[1]


ODD = [{"rescale_to": [0.0, 900.0]}, {"fallback_verdict": {"verdict": "accepted"}}]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("verdict", ["accepted", "rejected"])
def test_the_acquired_image_is_not_taken_from_one_that_was_rescaled(delivery, phantom, acquired_of, odd, verdict):
    delivery.put("ants", phantom.bias, **odd)
    delivery.put("n4", phantom.bias, verdict=verdict)
    assert np.allclose(acquired_of(), phantom.acquired, rtol=1e-5)


def test_where_all_were_rescaled_the_source_is_read_if_it_is_the_same(delivery, phantom, acquired_of):
    source = delivery.out.parent / "raw" / T1W
    source.parent.mkdir(parents=True)
    nifti.save(phantom.image(np.where(phantom.brain, phantom.acquired, np.nan)), source)
    delivery.put("ants", phantom.bias, source=sha256(source), **ODD[0])
    assert np.allclose(acquired_of(), np.where(phantom.brain, phantom.acquired, 0))
    nifti.save(phantom.image(), source)
    delivery.put("ants", phantom.bias, source="of other bytes", key="2", **ODD[0])
    delivery.put("mriqc", phantom.bias**0.5, source="of other bytes", **ODD[0])
    assert acquired_of() is None
    record = read(delivery.record())
    assert set(record["images"]) == {"ants", "mriqc"} and "no longer where it was" in record["not_compared"]["acquired"]
    assert verdicts(record) and unjudged(delivery.out) == []
    assert "no longer where it was" in collect(delivery.out).results[0].judged.reason_against("ants")


def test_the_record_says_of_which_work_of_all_methods_it_is(delivery, phantom):
    delivery.put("n4", phantom.bias)
    delivery.put("old", phantom.bias, source="old")
    delivery.put("ubc", 1.0, verdict="rejected")
    delivery.put("n4", phantom.bias)
    assert judged(delivery)["delivered"] == {"n4": "n4 1", "old": "old 1", "ubc": "ubc 1"}
    delivery.put("old", phantom.bias, source="old", key="2")
    delivery.put("n4", phantom.bias)
    assert len(unjudged(delivery.out)) == 1


def test_without_a_brain_mask_nothing_is_judged_and_the_record_says_why(delivery, phantom):
    delivery.put("n4", phantom.bias, mask=False)
    record = judged(delivery)
    assert "no brain mask" in record["reason"] and record["images"] == {} and record["pairs"] == []
    assert unjudged(delivery.out) == []


def test_a_contrast_of_unknown_order_is_not_judged(delivery, phantom):
    scan = T1W.replace("T1w", "PDw")
    delivery.put("n4", phantom.bias, scan=scan)
    assert "PDw" in judged(delivery, scan)["reason"]


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SAL"])
def test_a_record_does_not_depend_on_how_the_images_are_stored(delivery, phantom, codes):
    delivery.put("n4", phantom.bias)
    before = judged(delivery)
    dseg = bids.JUDGED.paths(job_of(), delivery.out / "judge")["dseg"]
    tissue = dseg.read_bytes()
    delivery.put("n4", phantom.bias, codes=codes, key="2")
    after = judged(delivery)
    assert after["judged"] != before["judged"]
    changing = ("judged", "delivered", "work", "runtime_s")
    assert {k: v for k, v in after.items() if k not in changing} == {
        k: v for k, v in before.items() if k not in changing
    }
    assert dseg.read_bytes() == tissue


# --- when


def test_what_is_judged_is_not_judged_again(delivery, phantom):
    delivery.put("n4", phantom.bias)
    judged(delivery)
    before = times(delivery.out)
    assert unjudged(delivery.out) == [] and judge_rest(delivery.out) == {}
    judged(delivery)
    assert times(delivery.out) == before


def test_another_method_another_version_of_one_and_one_that_goes_are_judged_anew(delivery, phantom):
    delivery.put("n4", phantom.bias)
    judged(delivery)
    delivery.put("ubc", phantom.bias**0.5)
    assert [job.relative for job in unjudged(delivery.out)] == [T1W]
    assert verdicts(judged(delivery))["n4", "ubc"] == "n4"
    delivery.put("n4", 1 / phantom.bias, key="2")
    assert verdicts(judged(delivery))["n4", "ubc"] == "ubc"
    bids.output_paths(job_of(), delivery.out / "ubc")["metrics"].unlink()
    assert judge_rest(delivery.out) == {}
    record = read(delivery.record())
    assert record["judged"] == {"n4": "n4 2"} and set(record["images"]) == {"acquired", "n4"}


def test_another_version_of_the_judge_judges_anew(delivery, phantom, monkeypatch):
    delivery.put("n4", phantom.bias)
    judged(delivery)
    monkeypatch.setattr(judging, "JUDGE_VERSION", 1000)
    assert len(unjudged(delivery.out)) == 1
    assert judged(delivery)["judge_version"] == 1000


def test_the_records_of_scans_that_nobody_delivers_any_more_go(delivery, phantom):
    other = T1W.replace("01", "02")
    for scan in (T1W, other):
        delivery.put("n4", phantom.bias, scan=scan)
        judged(delivery, scan)
    bids.output_paths(job_of(other), delivery.out / "n4")["metrics"].unlink()
    judge_rest(delivery.out)
    assert delivery.record().is_file()
    assert not list((delivery.out / "judge/sub-02").rglob("*.*"))


def test_a_method_that_corrected_another_version_of_the_scan_is_not_compared(delivery, phantom):
    delivery.put("n4", phantom.bias, source="old")
    delivery.put("ubc", phantom.bias**0.5, source="new")
    record = judged(delivery)
    assert set(record["images"]) == {"acquired", "ubc"} and record["left_out"] == {}
    assert list(record["not_compared"]) == ["n4"] and "another version" in record["not_compared"]["n4"]


def test_a_run_that_was_killed_before_the_judge_and_one_within_are_made_good(delivery, phantom):
    scans = [T1W.replace("01", number) for number in ("01", "02")]
    for scan in scans:
        delivery.put("n4", phantom.bias, scan=scan)
    judged(delivery, scans[0])
    delivery.record(scans[0]).unlink()  # it is written last: the tissue is there, the record is not
    calls = []
    assert judge_rest(delivery.out, progress=lambda *numbers: calls.append(numbers)) == {}
    assert calls == [(0, 2), (1, 2), (2, 2)]
    assert [read(delivery.record(scan))["source"] for scan in scans] == [f"bids:raw:{scan}" for scan in scans]


def test_two_at_once_leave_one_whole_record(delivery, phantom):
    delivery.put("n4", phantom.bias)
    threads = [threading.Thread(target=judge_scan, args=(delivery.out, job_of())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(delivery.record())["judged"] == {"n4": "n4 1"} and unjudged(delivery.out) == []


def test_a_damaged_image_is_named_and_the_other_scans_are_judged(delivery, phantom):
    other = T1W.replace("01", "02")
    for scan in (T1W, other):
        delivery.put("n4", phantom.bias, scan=scan)
    corrected = bids.output_paths(job_of(), delivery.out / "n4")["corrected"]
    corrected.write_bytes(bytes(corrected.stat().st_size))
    problems = judge_rest(delivery.out)
    assert list(problems) == [T1W] and str(corrected) in problems[T1W]
    assert delivery.record(other).is_file() and not delivery.record().exists()
    with pytest.raises(UnreadableImageError):
        judge_scan(delivery.out, job_of())


def test_a_folder_of_somebody_elses_is_left_as_it_is(delivery, phantom):
    foreign = delivery.out / "judge/sub-01/anat/sub-01_desc-T1w_judge.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("{")
    (delivery.out / "judge/dataset_description.json").write_text('{"Name": "of a judge"}')
    assert judge_rest(delivery.out) == {} and judge_scan(delivery.out, job_of()) is None
    delivery.put("n4", phantom.bias)
    assert "was not written by biascorr_pydra" in judge_rest(delivery.out)[T1W]
    assert foreign.read_text() == "{"


def test_what_cannot_be_removed_is_named(delivery, phantom):
    delivery.put("n4", phantom.bias)
    record = judge_scan(delivery.out, job_of())
    (delivery.out / "n4").rename(delivery.out / ".aside")
    record.unlink()
    record.mkdir()
    with pytest.raises(OutputError, match="cannot be removed"):
        judge_scan(delivery.out, job_of())
    with pytest.raises(OutputError, match="cannot be removed"):
        judge_rest(delivery.out)


def test_whatever_the_judge_raises_costs_no_other_scan(delivery, phantom, monkeypatch):
    other = T1W.replace("01", "02")
    for scan in (T1W, other):
        delivery.put("n4", phantom.bias, scan=scan)
    judge, odd = judging.judge_images, iter([True, False])
    monkeypatch.setattr(judging, "judge_images", lambda *args, **kw: 1 / 0 if next(odd) else judge(*args, **kw))
    problems = judge_rest(delivery.out)
    assert list(problems) == [T1W] and problems[T1W].startswith("ZeroDivisionError")
    assert delivery.record(other).is_file() and not delivery.record().exists()


@pytest.mark.parametrize(
    ("kind", "content"),
    [("metrics", {"gate": {"verdict": "accepted"}}), ("metrics", {"gate": None}), ("corrected", None)],
)
def test_damaged_records_of_a_method_are_as_none(delivery, phantom, kind, content):
    for label in ("n4", "ubc"):
        delivery.put(label, phantom.bias)
    paths = bids.output_paths(job_of(), delivery.out / "n4")
    path = paths[kind] if kind == "metrics" else bids.sidecar(paths[kind])
    path.write_text(json.dumps(read(path) | content if content else [1]))
    assert judge_rest(delivery.out) == {}
    assert set(read(delivery.record())["judged"]) == {"ubc"}


def test_the_judges_folder_is_a_data_set_of_its_own_made_from_the_same_raw_one(delivery, phantom):
    delivery.put("n4", phantom.bias)
    judged(delivery)
    about = read(delivery.out / "judge/dataset_description.json")
    assert about["DatasetLinks"] == {"raw": "../../raw"} and about["DatasetType"] == "derivative"
    assert "*_judge.json" in (delivery.out / "judge/.bidsignore").read_text().splitlines()
