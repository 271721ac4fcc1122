"""The report and the judge: who is better comes from the judge's verdicts, and from nothing else."""

import json

import nibabel as nib
import numpy as np
import pytest
from written_cohort import AFFINE, BEFORE, T1W, T2W, Page, gate, pair, read_table, write_scan, write_status

from biascorr_pydra.errors import GridMismatchError
from biascorr_pydra.judge import RANKED_BY
from biascorr_pydra.report import write_report
from biascorr_pydra.report.cohort.findings import find
from biascorr_pydra.report.collect import Cohort, Result, collect
from biascorr_pydra.report.judged import JudgedScan
from biascorr_pydra.report.scan.coarse import labels_on
from biascorr_pydra.report.scan.content import judge_verdict
from biascorr_pydra.report.table import judge_word
from biascorr_pydra.report.verdicts import over_cohort, sentence

JUDGE_FILE = "judge/sub-01/ses-1/anat/sub-01_ses-1_desc-T1w_judge.json"


def change_judge(out, **parts):
    path = out / JUDGE_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def judged_results(n, **spreads):
    """Scans of one site by several methods, each with one spread relative to the acquired image's, and its verdicts."""
    results = []
    for number in range(n):
        jitter = 1 + 0.01 * number / n
        values = {"acquired": 0.2 * jitter, **{method: 0.2 * factor for method, factor in spreads.items()}}
        images = {name: {**dict.fromkeys(RANKED_BY, value), "cjv": 4 * value} for name, value in values.items()}
        names = list(values)
        pairs = [pair(a, b, 100 * (values[b] / values[a] - 1)) for i, a in enumerate(names) for b in names[i + 1 :]]
        judged = JudgedScan(record={"images": images, "judged": dict.fromkeys(spreads, "k"), "pairs": pairs})
        scan = f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz"
        for method in spreads:
            record = {"before": images["acquired"], "after": images[method]}
            results.append(Result(scan, method, "done", record=record, site="A", judged=judged))
    return results


def rows_of(results):
    findings = find(Cohort("c", results, []), 3.5)
    return {(row["method"], row["reference"]): row for row in findings.verdicts}


# --- who is better


def test_a_method_that_leaves_less_is_better_over_the_cohort():
    rows = rows_of(judged_results(8, deepem=0.5, n4=0.8))
    assert rows["deepem", "acquired"]["verdict"] == rows["n4", "acquired"]["verdict"] == "better"
    assert (rows["n4", "deepem"]["verdict"], rows["n4", "deepem"]["n_worse"]) == ("worse", 8)
    assert rows["n4", "deepem"]["tissue_unevenness_percent"] == pytest.approx(60)
    text = sentence(rows["n4", "deepem"])
    assert text.startswith(
        "deepem against n4: better in 8, worse in 0 of 8 judged scans; over the cohort: better (unevenness"
    )
    assert "of tissue −37.5% (" in text


def test_few_scans_and_no_verdict_are_said():
    rows = rows_of(judged_results(3, deepem=0.5, n4=0.8))
    assert rows["n4", "deepem"]["n_worse"] == 3
    assert over_cohort(rows["n4", "deepem"]) == "cannot tell (3 judged scans, and a test over scans needs 6)"
    (row,) = rows_of([Result(T1W, "n4", record={"after": {"cjv": 1.0}})]).values()
    assert sentence(row) == "n4 against the acquired image: not judged."


def test_cv_and_cjv_rank_nothing():
    """The metrics say the opposite of the number that ranks; nobody asks them."""
    results = judged_results(8, deepem=0.5, n4=0.8)
    for result in results:
        result.record["after"] |= {"cjv": 9.0 if result.method == "deepem" else 0.1, "cv_wm": 9.0}
    findings = find(Cohort("c", results, []), 3.5)
    assert {row["wins"] for row in findings.comparisons} == {None}
    verdicts = {(row["method"], row["reference"]): row["verdict"] for row in findings.verdicts}
    assert verdicts["n4", "deepem"] == "worse"


def test_a_verdict_holds_in_both_orders(out, cohort):
    """The judge wrote n4 against ubc once; read the other way round it is the inverse, and says the same."""
    judged = collect(out).results[0].judged
    way, back = judged.compare("n4", "ubc"), judged.compare("ubc", "n4")
    assert (way.word, back.word) == ("worse", "better")
    change, low, high = way.changes["tissue_unevenness"]
    assert change == pytest.approx(50) and back.changes["tissue_unevenness"][0] == pytest.approx(-100 / 3)
    assert back.changes["tissue_unevenness"][1:] == pytest.approx(
        (100 * (100 / (100 + high) - 1), 100 * (100 / (100 + low) - 1))
    )


def test_a_rejected_image_is_the_acquired_one(out):
    write_scan(out)
    write_scan(out, method="ubc", after=BEFORE, metrics={"gate": gate("rejected", "x")})
    ubc = next(result for result in collect(out).results if result.method == "ubc")
    assert ubc.against_acquired.word == "same"
    assert ubc.part("after") == ubc.part("before") != {}
    assert ubc.judged.compare("ubc", "n4").word == "better"


def test_a_verdict_that_nobody_knows_is_none():
    (result,) = judged_results(1, n4=0.5)
    (known,) = result.judged.record["pairs"]
    assert (known["verdict"], judge_word(result)) == ("n4", "better")
    for verdict in ("perhaps", None, "ubc", ""):
        known["verdict"] = verdict
        assert result.judged.compare("acquired", "n4") is result.judged.compare("n4", "acquired") is None
        assert judge_word(result) == "not judged"
        assert judge_verdict(result)["text"].startswith("not judged: the judge's record has no verdict on it that this")
        assert rows_of([result])["n4", "acquired"]["n_not_judged"] == 1


# --- flags


def test_a_large_change_for_the_better_is_no_reason_to_look():
    """Two scans changed far more than the others; only the one made worse is flagged for that."""
    results = [*judged_results(12, n4=0.8), *judged_results(1, n4=0.2), *judged_results(1, n4=2.5)]
    results[-2].scan, results[-1].scan = "sub-50/anat/sub-50_T1w.nii.gz", "sub-51/anat/sub-51_T1w.nii.gz"
    for result in results:  # all end alike: only the changes differ
        result.record["after"] = {"cjv": 0.5}
        result.record["before"] = {"cjv": 0.7}
    results[-2].record["before"] = {"cjv": 0.1}  # CJV rose by 400%, and the judge calls it better
    reasons = set()
    for flag in find(Cohort("c", results, []), 3.5).flags:
        for reason in flag.reasons:
            reasons.add((flag.results[0].subject, reason.kind, reason.measure.part if reason.measure else None))
    assert ("51", "worse", None) in reasons
    assert not {part for subject, _, part in reasons if subject == "50"} & {"change", None}


# --- what was not judged


def test_a_folder_of_an_earlier_version_says_that_nothing_was_judged(out):
    write_scan(out, judged=False)
    write_scan(out, method="ubc", judged=False, after={"cjv": 0.9})
    write_status(out, (T1W, "n4", "done", "n/a"), (T1W, "ubc", "done", "n/a"))
    paths = write_report(out)
    text = Page(paths.html).text
    assert (
        "No scan was judged: the records are of an earlier version, which had no judge. `biascorr report OUT` judges"
        in text
    )
    assert "worse" not in {tag_class for _, a in Page(paths.html).tags for tag_class in a.get("class", "").split()}
    (row, _) = read_table(paths.metrics_tsv)
    assert (row["judge"], row["cjv_after"], row["cjv_own_before"], row["cjv_own_after"]) == (
        "not judged",
        "n/a",
        "0.8",
        "0.6",
    )
    assert "Judge: not judged: the records are of an earlier" in Page(out / "reports/sub-01_ses-1_T1w.html").text


def test_a_record_of_other_results_is_not_used(out, cohort):
    write_scan(out, metrics={"work": {"key": "new"}})
    change_judge(out, delivered={"n4": "old", "ubc": "key"})
    paths = write_report(out, scan_pages=False)
    assert (
        "the judge's record is of other results than those in the folder: it is not used. `biascorr"
        in Page(paths.html).text
    )
    assert [row["judge"] for row in read_table(paths.metrics_tsv)[:2]] == ["not judged", "not judged"]


@pytest.mark.parametrize(
    "change",
    [
        {"delivered": {"n4": "key", "ubc": "old"}},
        {"delivered": {"n4": "key"}},
        {"delivered": None},
        {"judge_version": 0},
    ],
)
def test_a_rejected_field_is_believed_only_of_the_results_in_the_folder(out, change):
    write_scan(out)
    write_scan(out, method="ubc", after=BEFORE, metrics={"gate": gate("rejected", "x"), "work": {"key": "key"}})
    assert all(result.against_acquired for result in collect(out).results)
    change_judge(out, **change)
    cohort = collect(out)
    assert not any(result.against_acquired for result in cohort.results)
    assert "it is not used" in next(problem.text for problem in cohort.problems if problem.file == f"judge: {T1W}")


def test_a_reason_of_the_judge_is_said(out, cohort):
    change_judge(out, reason="the brain mask is empty", images={}, pairs=[])
    text = Page(write_report(out, scan_pages=False).html).text
    assert "No scan was judged: the brain mask is empty. " in text
    assert "of 2 judged" not in text


@pytest.mark.parametrize(
    "odd", [{"pairs": 5}, {"images": [1]}, {"judged": None}, {"left_out": "x"}, {"pairs": [1, {}]}]
)
def test_damaged_records_of_the_judge_stop_nothing(out, cohort, odd):
    change_judge(out, **odd)
    assert write_report(out, scan_pages=False).html.is_file()
    (out / JUDGE_FILE).write_text("{")
    assert "not readable as JSON" in Page(write_report(out, scan_pages=False).html).text


# --- the judge's tissue


def test_the_judges_tissue_is_laid_over_the_image():
    """Coarse voxel 1 covers voxels 4 and 5 of an image whose box begins at 2."""
    coarse = AFFINE @ np.array([[2.0, 0, 0, 2.5], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]])
    labels = np.zeros((3, 2, 2), np.int16)
    labels[1, :, 0] = 2
    full = labels_on(labels, coarse, (10, 2, 4), AFFINE)
    expected = np.zeros((10, 2, 4))
    expected[4:6, :, 1] = 2
    assert (full == expected).all()
    turned = np.array([[0.9, -0.4, 0, 0], [0.4, 0.9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(GridMismatchError, match="along the axes"):
        labels_on(labels, turned @ coarse, (10, 2, 4), AFFINE)


def test_a_scans_page_outlines_the_judges_tissue(out, cohort, small_pictures):
    labels = np.zeros((10, 12, 12), np.uint8)
    labels[3:7, 4:8, 3:9], labels[2, 4:8, 3:9] = 2, 1
    step = np.array([[2.0, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(labels, AFFINE @ step), (out / JUDGE_FILE).parent / "sub-01_ses-1_desc-judge_dseg.nii.gz")
    write_report(out)
    page = Page(out / "reports/sub-01_ses-1_T1w.html")
    assert any("outlines of brain mask, white matter, gray matter" in a["alt"] for a in page.images())
    assert "The tissue is the judge’s" in page.text
    assert "ubc against n4: worse: unevenness of tissue +50.0%" in page.text


def test_the_t2w_has_tissue_of_its_own(out, cohort):
    """In one folder, the name without a space is the T1w's."""
    folder = out / "judge/sub-02/anat"
    (folder / "sub-02_desc-judge_dseg.nii.gz").write_bytes(b"")
    assert next(r for r in collect(out).results if r.scan == T2W).judged.dseg is None
    (folder / "sub-02_space-T2w_desc-judge_dseg.nii.gz").write_bytes(b"")
    dseg = next(r for r in collect(out).results if r.scan == T2W).judged.dseg
    assert dseg.name == "sub-02_space-T2w_desc-judge_dseg.nii.gz"
