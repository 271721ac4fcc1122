"""What the cohort's report finds: sites, outliers, differences between sites, run times, flags, and what it writes."""

import hashlib
import json
import math
import re

import numpy as np
import pytest
from written_cohort import T1W, T2W, Page, read_table, write_scan, write_status

from biascorr_pydra.errors import BIDSError, InvalidParameterError
from biascorr_pydra.judge import RANKED_BY
from biascorr_pydra.metrics import HISTOGRAM_BINS, HISTOGRAM_RANGE, UndefinedMetricError, normalized_histogram
from biascorr_pydra.quality import measure
from biascorr_pydra.report import write_report
from biascorr_pydra.report.cohort import page
from biascorr_pydra.report.cohort.findings import find
from biascorr_pydra.report.cohort.flags import flags
from biascorr_pydra.report.cohort.outliers import Measure, scores
from biascorr_pydra.report.cohort.run_times import run_times
from biascorr_pydra.report.cohort.site_differences import site_differences
from biascorr_pydra.report.collect import Cohort, Result
from biascorr_pydra.report.scripts import as_json
from biascorr_pydra.report.study.study import collect_study
from biascorr_pydra.statistics.outliers import FEWEST

EVIL = "</script><img src=x onerror=alert(1)><b>\u2028&"
AFTER = Measure("after", "cjv")


def result(number, site, cjv, method="n4", **record):
    scan = f"sub-{number:02d}/anat/sub-{number:02d}_T1w.nii.gz"
    return Result(scan, method, "done", record={"after": {"cjv": cjv}, **record}, site=site)


def site_of(name, values, first=0, **record):
    return [result(first + i, name, value, **record) for i, value in enumerate(values)]


# --- outliers


def test_an_outlier_is_one_of_its_site():
    """0.9 is ordinary at site B and an outlier at site A."""
    spread = np.linspace(-0.02, 0.02, FEWEST)
    results = [*site_of("A", 0.5 + spread), result(50, "A", 0.9), *site_of("B", 0.9 + spread, first=60)]
    flagged = flags(Cohort("c", results, []), scores(results), 3.5)
    assert [flag.place for flag in flagged] == ["sub-50/anat/sub-50_T1w.nii.gz"]
    (reason,) = flagged[0].reasons
    assert (reason.kind, reason.method, reason.measure, reason.score.n) == ("outlier", "n4", AFTER, FEWEST + 1)
    assert reason.text.startswith("CJV after is high: 0.9, median of its site 0.5")
    assert not flags(Cohort("c", results, []), scores(results), flagged[0].size + 1)


def test_a_small_site_is_judged_among_all():
    """Three scans that agree with each other, far from everybody else's, are told; within their site they would not."""
    spread = np.linspace(-0.02, 0.02, 40)
    small = site_of("small", [0.9, 0.9, 0.9], first=60)
    results = [*site_of("large", 0.5 + spread), *small]
    mine = scores(results)[-1][AFTER]
    assert (mine.group, mine.n) == ("all sites", 43)
    assert mine.z == pytest.approx((0.9 - mine.median) / mine.spread) and mine.z > 3.5
    assert scores(results)[0][AFTER].group == "site"
    assert scores(small) == [{}, {}, {}]  # nobody to compare with


def test_other_methods_and_contrasts_are_not_compared():
    spread = np.linspace(-0.02, 0.02, FEWEST)
    results = [*site_of("A", 0.5 + spread), *[result(i, "A", 0.9 + x, method="ubc") for i, x in enumerate(spread)]]
    assert max(abs(mine[AFTER].z) for mine in scores(results)) < 2


def test_flags_are_ordered_and_the_acquired_image_is_flagged_once():
    spread = np.linspace(-0.02, 0.02, FEWEST)
    results = [r for m in ("n4", "ubc") for r in (result(i, "A", 0.5 + x, m) for i, x in enumerate(spread))]
    for i, r in enumerate(results):
        r.record["before"] = {"cjv": 0.7 + spread[i % FEWEST]}
    for r in (results[3], results[3 + FEWEST]):
        r.record["before"]["cjv"] = 5.0
    results[7].record["gate"] = {"verdict": "rejected", "reasons": ["contrast fell"], "applied": "none"}
    failed = Result("sub-99/anat/sub-99_T1w.nii.gz", "n4", "failed", "no such file", site="A")
    results.append(failed)
    flagged = flags(Cohort("c", results, []), scores(results), 3.5)
    assert [flag.kind for flag in flagged] == ["failed", "rejected", "outlier"]
    assert [reason.text for reason in flagged[0].reasons] == ["no such file"]
    assert flagged[1].reasons[0].text == "contrast fell; passed on as it is"
    before = [reason for reason in flagged[2].reasons if reason.measure == Measure("before", "cjv")]
    assert len(before) == 1 and before[0].method is None


# --- sites


def histograms(before, after):
    counts = np.zeros((2, HISTOGRAM_BINS), int)
    counts[0, before], counts[1, after] = 7, 9
    return {"histogram": {"range": list(HISTOGRAM_RANGE), "before": counts[0].tolist(), "after": counts[1].tolist()}}


def test_site_differences_by_hand():
    """Before, the two sites have no intensity in common, which is ln 2; after, they are alike, which is 0."""
    results = [result(i, "A", 0.5, **histograms(10, 30)) for i in range(3)]
    results += [result(9, "B", 0.5, **histograms(20, 30))]
    rows = {row["site"]: row for row in site_differences(results)}
    assert {site: row["n_scans"] for site, row in rows.items()} == {"all sites": 4, "A": 3, "B": 1}
    for row in rows.values():
        assert (row["jsd_before"], row["jsd_after"]) == (pytest.approx(math.log(2)), pytest.approx(0))


def test_a_site_is_the_mean_of_its_scans_and_sites_count_alike():
    """Site A: half in bin 10, half in 20, whatever the voxels of a scan; B: all in bin 20; nobody else."""
    one, other = histograms(10, 0), histograms(20, 0)
    other["histogram"]["before"] = [100 * n for n in other["histogram"]["before"]]
    results = [result(1, "A", 0.5, **one), result(2, "A", 0.5, **other)]
    results += [result(i, "B", 0.5, **histograms(20, 0)) for i in range(3, 9)]
    mean = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)  # of the two sites' mean, (0.25, 0.75)
    expected = -mean - math.log(2) / 2  # entropy of the mean minus the mean entropy
    assert site_differences(results)[0]["jsd_before"] == pytest.approx(expected)


@pytest.mark.parametrize("part", [{}, {"before": [1], "after": [1]}, {"before": "x", "after": None}, {"range": [0, 9]}])
def test_damaged_histograms_are_left_out(part):
    results = [result(1, "A", 0.5, **histograms(1, 1)), result(2, "B", 0.5, **histograms(1, 1))]
    broken = histograms(1, 1)
    broken["histogram"] = broken["histogram"] | part if part else {}
    assert site_differences([*results, result(3, "B", 0.5, **broken)])[0]["n_scans"] == 2
    assert site_differences([results[0], result(3, "B", 0.5, **broken)]) == []


def test_normalized_histogram_by_hand():
    data = np.full((10, 10, 10), 50.0)
    data[0], data[1], data[2, 0, 0] = 25.0, 1000.0, np.nan
    counts = normalized_histogram(data, np.ones(data.shape, bool))
    width = (HISTOGRAM_RANGE[1] - HISTOGRAM_RANGE[0]) / HISTOGRAM_BINS
    expected = np.zeros(HISTOGRAM_BINS, int)
    expected[int(0.5 / width)], expected[int(1 / width)], expected[-1] = 100, 799, 100
    assert counts == expected.tolist()
    assert normalized_histogram(data * 3, np.ones(data.shape, bool)) == counts  # the scanner's scale is out
    with pytest.raises(UndefinedMetricError, match="median"):
        normalized_histogram(-data, np.ones(data.shape, bool))


def test_a_measured_scan_has_its_histograms(phantom):
    corrected = phantom.acquired / phantom.bias
    measured = measure(phantom.acquired, corrected, phantom.bias, phantom.brain, None, (4, 4, 4))
    assert measured["histogram"] == {
        "range": list(HISTOGRAM_RANGE),
        "before": normalized_histogram(phantom.acquired, phantom.brain),
        "after": normalized_histogram(corrected, phantom.brain),
    }


def test_the_site_is_the_sources(out):
    folder = out / "derived"
    write_scan(folder)
    write_scan(folder, T2W)
    raw = out / "raw"
    raw.mkdir()
    (raw / "participants.tsv").write_text("participant_id\tsite\nsub-01\tMain St\nsub-02\tn/a\n")
    link = {"Name": "x", "BIDSVersion": "1.11.0", "DatasetLinks": {"raw": "../../raw"}}
    (folder / "n4/dataset_description.json").write_text(json.dumps(link))
    assert [r.site for r in collect_study(folder).results] == ["Main St", None]
    table = out / "given.csv"
    table.write_text("SUB_ID,SITE_ID\n1,Given\n2,Other\n")
    assert [r.site for r in collect_study(folder, table).results] == ["Given", "Other"]
    (raw / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\n")  # no site, and no fault
    assert [r.site for r in collect_study(folder).results] == [None, None]
    table.write_text("a,b\n1,2\n")
    with pytest.raises(BIDSError, match="SITE_ID"):
        collect_study(folder, table)


def test_a_study_of_several_data_sets_is_one_report(out):
    for site in ("Pitt", "Yale"):
        write_scan(out / site)
        write_status(out / site, (T1W, "n4", "done", "n/a"))
    (out / "Yale/n4/sub-01/ses-1/anat/sub-01_ses-1_desc-T1w_biasfield.nii.gz").unlink()
    paths = write_report(out, study=True)
    rows = read_table(paths.metrics_tsv)
    assert [(row["folder"], row["site"], row["scan"]) for row in rows] == [("Pitt", "Pitt", T1W), ("Yale", "Yale", T1W)]
    text = Page(paths.html).text
    assert "2 scans of 2 subjects at 2 sites" in text
    assert "Yale/n4/sub-01/ses-1/anat/sub-01_ses-1_desc-T1w_biasfield.nii.gz" in text


# --- cost


def test_a_shared_step_counts_once():
    def timed(number, method, correct, strip):
        times = {"correct": correct, "skull_strip": strip, "segmentation": 60.0}
        return result(number, "A", 0.5, method, runtime_s=times)

    results = [timed(1, "n4", 10.0, 3600.0), timed(1, "ubc", 2.0, 3600.0), timed(2, "n4", 30.0, 3600.0)]
    rows = {(row["method"], row["step"]): row for row in run_times(results)}
    assert rows["all methods", "skull_strip"]["total_h"] == 2
    assert (rows["n4", "correct"]["median_s"], rows["n4", "correct"]["n_scans"]) == (20, 2)
    assert rows["n4", "correct"]["per_1000_scans_h"] == pytest.approx(20 * 1000 / 3600)
    assert rows["ubc", "correct"]["total_h"] == pytest.approx(2 / 3600)
    # each method's own image is segmented
    assert (rows["n4", "segmentation"]["n_scans"], rows["ubc", "segmentation"]["n_scans"]) == (2, 1)


# --- what is written


def test_summary_in_words(out, cohort):
    text = Page(write_report(out).html).text
    assert "2 scans of 2 subjects, 2 methods (n4, ubc)" in text
    assert "Of 4 corrections, 3 are done and 1 failed" in text
    assert (
        "T1w, n4 1 of 1 scan corrected.n4 against the acquired image: better in 1, worse in 0 of 1 judged scan" in text
    )
    assert "CJV fell by 25.0%.CV of white matter fell by 30.0%." in text
    assert (
        "ubc against the acquired image: better in 0, worse in 1 of 1 judged scan; over the cohort: cannot tell" in text
    )
    assert "n4 against ubc: better in 1, worse in 0 of 1 judged scan" in text
    assert "CJV rose by 12.5%." in text
    assert "CV of gray matter did not change." in text
    assert "Correction took 2.2 s." in text
    assert 'ubc: sub-02_T2w.nii.gz: "bad" <script>alert(1)</script>' in text


def test_the_text_to_paste_has_the_numbers():
    results = []
    for i in range(20):
        change = 0.1 if i == 0 else -0.2 - i / 1000
        record = {"before": {"cjv": 1.0}, "method_version": "3", "preset": "biascorr", "skull_strip": "deepbet"}
        results.append(result(i, "AB"[i % 2], 1.0 + change, **record))
    results[5].record["gate"] = {"verdict": "rejected", "reasons": ["x"], "applied": "none"}
    results.append(Result("sub-50/anat/sub-50_T1w.nii.gz", "n4", "failed", "x", site="A"))
    (text,) = page.methods_text(find(Cohort("c", results, []), 3.5))
    assert "21 T1w scans of 21 participants at 2 sites" in text
    assert "(version 3; preset biascorr)" in text
    assert "Brain masks were made by deepbet." in text
    assert (
        "With n4, 20 of 21 scans went through; a do-no-harm check rejected 1 field and left the image as it is" in text
    )
    assert "1 scan failed" in text
    # 19 changes of -0.201 to -0.219 and one of 0.1: the median is between -0.209 and -0.210
    assert "CJV fell from a median of 1.000 to 0.7905 (median change −0.2095, 95% interval −0.21" in text
    assert "lower in 19, higher in 1 of 20 scans" in text
    assert "No scan was judged" in text


def test_a_partial_cohort_is_called_one(out, cohort):
    write_status(
        out, (T1W, "n4", "waiting", "n/a"), (T1W, "ubc", "done", "n/a"), (T2W, "n4", "done", "n/a"),
        (T2W, "ubc", "waiting", "n/a"), ("sub-03/anat/sub-03_T1w.nii.gz", "n4", "skipped", "4-D"),
    )  # fmt: skip
    paths = write_report(out)
    text = Page(paths.html).text
    assert "A part of the cohort. 1 of 5 corrections had not been made" in text
    assert "no run is going on" in text
    assert "PRELIMINARY" in text
    assert "Missing, damaged" not in text  # what is still to come is no problem
    states = {(row["scan"], row["method"]): row["state"] for row in read_table(paths.metrics_tsv)}
    assert states[T1W, "n4"] == "done" and states[T2W, "ubc"] == "waiting"  # the run has reached the first
    contents = json.loads(paths.everything.read_text())
    assert (contents["Complete"], contents["Waiting"]) == (False, 1)


def test_every_table_has_a_dictionary_of_its_columns(out, cohort):
    folder = write_report(out).everything.parent
    contents = json.loads((folder / "report.json").read_text())
    assert (
        set(contents["Tables"]) == {"metrics", *(path.stem for path in folder.glob("*.tsv"))}
        and len(contents["Tables"]) == 9
    )
    for path in folder.glob("*.tsv"):
        heads = path.read_text().split("\n")[0].split("\t")
        dictionary = json.loads(path.with_suffix(".json").read_text())
        assert heads == list(dictionary) and all(entry["Description"] for entry in dictionary.values())
        assert len(read_table(path)) == len(contents["Tables"][path.stem])
        assert all(set(row) <= set(heads) for row in contents["Tables"][path.stem])
    flagged = read_table(folder / "flagged.tsv")
    reasons = [(row["place"], row["kind"], row["method"]) for row in flagged]
    assert reasons == [(T2W, "failed", "ubc"), (T1W, "worse", "ubc")]
    rows = read_table(folder / "comparisons.tsv")
    wanted = [r for r in rows if (r["metric"], r["method"], r["reference"], r["suffix"]) == ("cjv", "ubc", "n4", "T1w")]
    assert float(wanted[0]["median_change"]) == pytest.approx(0.9 - 0.6)


def test_mriqc_is_joined_by_name(out, cohort, tmp_path):
    table = tmp_path / "group_T1w.tsv"
    table.write_text("bids_name\tcnr\tprovenance\nsub-01_ses-1_T1w\t3.25\ta b\nsub-09_T1w\t1\tx\n")
    paths = write_report(out, mriqc=table)
    rows = read_table(paths.metrics_tsv)
    assert [row["mriqc_cnr"] for row in rows] == ["3.25", "3.25", "n/a", "n/a"]
    assert rows[0]["mriqc_provenance"] == "a b"
    assert json.loads(paths.metrics_json.read_text())["mriqc_cnr"]["LongName"] == "MRIQC's cnr"
    text = Page(paths.html).text
    assert "1 not in MRIQC's table: sub-02_T2w" in text
    assert "1 in MRIQC's table, not among these scans: sub-09_T1w" in text
    table.write_text("name\tcnr\n")
    with pytest.raises(BIDSError, match="bids_name"):
        write_report(out, mriqc=table)


@pytest.mark.parametrize("threshold", [0, -1, float("nan")])
def test_a_threshold_is_above_0(out, threshold):
    with pytest.raises(InvalidParameterError, match="above 0"):
        write_report(out, threshold=threshold)


def test_scans_are_linked_to_pages_that_are_there(out, cohort):
    (out / "reports").mkdir()
    (out / "reports/sub-01_ses-1_T1w.html").write_text("x")
    links = {
        a["href"]
        for tag, a in Page(write_report(out, scan_pages=False).html).tags
        if tag == "a" and not a["href"].startswith("#")
    }
    assert links == {"reports/sub-01_ses-1_T1w.html"}


# --- safety


def test_the_page_loads_nothing_and_runs_only_its_own_scripts(out, cohort):
    html = Page(write_report(out).html)
    assert not [tag for tag, _ in html.tags if tag in {"link", "iframe", "object", "embed", "base", "form"}]
    assert [attributes for tag, attributes in html.tags if tag == "script"] == [
        {"type": "application/json", "id": "data"}, {}, {}, {},
    ]  # fmt: skip
    for tag, attributes in html.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert attributes.get("src", "data:image/jpeg;base64,").startswith("data:image/jpeg;base64,")
        assert "srcset" not in attributes
    policy = next(a["content"] for tag, a in html.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert policy.count("'sha256-") == 3 and "unsafe-inline" not in policy.split("script-src")[1]
    targets = {attributes["id"] for _, attributes in html.tags if "id" in attributes}
    assert {a["href"][1:] for tag, a in html.tags if tag == "a" and a["href"].startswith("#")} <= targets


def test_names_and_errors_are_escaped(tmp_path):
    out = tmp_path / "<img src=x onerror=alert(2)>"
    source = f"bids:raw:sub-<b>/anat/{EVIL}_T1w.nii.gz"
    odd = {"before": {EVIL: 1}, "runtime_s": {EVIL: 1}, "segmentation": {"method": EVIL}, "skull_strip": EVIL}
    write_scan(out, metrics={"source": source, "warnings": [EVIL], "method_version": EVIL, **odd})
    write_status(out, (T2W, EVIL, "failed", EVIL), (T2W, "n4", EVIL, EVIL))
    (out / "mriqc.tsv").write_text(f"bids_name\t{EVIL}\n{EVIL}_T1w\t2\n")
    html = Page(write_report(out, mriqc=out / "mriqc.tsv").html)
    assert [tag for tag, _ in html.tags].count("script") == 4
    assert {image["src"][:10] for image in html.images()} <= {"data:image"}
    assert html.text.count("<img src=x onerror=alert(1)>") >= 5
    data = re.search(r'id="data">(.*?)</script>', html.source, re.S)[1]
    assert not set(data) & set("<>&\u2028\u2029")
    assert any(EVIL in place for place in json.loads(data)["rows"]["place"])


def test_json_for_a_script_is_the_same_json():
    content = {"a": [EVIL, "\u2029", None, 1.5], "<": True}
    assert json.loads(as_json(content)) == content
    assert not set(as_json(content)) & set("<>&\u2028\u2029")


def test_plotly_is_the_file_that_its_page_names():
    readme = (page.PLOTLY.parent / "README.md").read_text()
    digest = hashlib.sha256(page.PLOTLY.read_bytes()).hexdigest()
    assert f"sha256 {digest}  {page.PLOTLY.name}" in readme
    content = page.PLOTLY.read_text("utf-8")
    assert "</script" not in content.lower() and "<!--" not in content


# --- figures


def test_figures_are_png_and_svg(out, monkeypatch):
    monkeypatch.setattr("biascorr_pydra.report.cohort.figures.DPI", 40)
    write_scan(out)
    write_status(out, (T1W, "n4", "done", "n/a"))
    write_report(out, figures=out / "figures")
    names = {path.name for path in (out / "figures").iterdir()}
    keys = ("changes", "cjv", "cv_gm", "cv_wm", "run_time", "wm_gm_contrast", *RANKED_BY)  # no site is known to differ
    assert names == {f"{key}_T1w.{kind}" for key in keys for kind in ("png", "svg")}
    svg = (out / "figures/cjv_T1w.svg").read_text()
    for words in ("before", "n4", "no site (1)", "CJV (lower is better)"):
        assert f">{words}<" in svg
    assert "<dc:date>" not in svg
