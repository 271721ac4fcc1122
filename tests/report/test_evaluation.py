"""The evaluation of a study from written files: values by hand, what is undefined, what is damaged, and its words."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from written_cohort import write_judge

from biascorr_pydra import bids, report
from biascorr_pydra.bids import Job
from biascorr_pydra.errors import BIDSError
from biascorr_pydra.report.study.evaluation import evaluate
from biascorr_pydra.report.study.write import read_problems, write_evaluation
from biascorr_pydra.statistics.compare import holm

METRICS = ("cjv", "cv_wm", "cv_gm", "wm_gm_contrast")
SITES = {"A": 8, "B": 7, "C": 1}


def scan_of(number: int) -> str:
    return f"sub-{number:02}/anat/sub-{number:02}_T1w.nii.gz"


def write_metrics(root, method: str, number: int, before: dict, after: dict, undefined=None, segmentation="atropos"):
    """The metrics file of one scan by one method, as publish writes it."""
    job = Job(root, scan_of(number), (("sub", f"{number:02}"),), "T1w")
    path = bids.output_paths(job, root / method)["metrics"]
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"source": bids.bids_uri(job), "before": before, "after": after, "undefined": undefined or {}}
    record["segmentation"] = {"method": segmentation, "image": "the image itself"}
    path.write_text(
        json.dumps({f"own_{key}" if key in ("before", "after") else key: part for key, part in record.items()})
    )
    write_judge(root, scan_of(number), method, record)
    bids.sidecar(bids.output_paths(job, root / method)["corrected"]).write_text('{"Method": {}}')
    for kind in ("corrected", "bias"):
        bids.output_paths(job, root / method)[kind].write_bytes(b"")
    (root / method / "dataset_description.json").write_text("{}")


def write_status(root, rows) -> None:
    lines = ["\t".join(bids.STATUS_COLUMNS), *("\t".join(row) for row in rows)]
    (root / "status.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def study(tmp_path):
    """16 scans of 3 sites, a folder each, two methods, values drawn with a seed; the folder and the values."""
    rng = np.random.default_rng(5)
    scans, values, number = [], [], 0
    for site, n in SITES.items():
        status = []
        for _ in range(n):
            number += 1
            before = {key: float(rng.uniform(0.5, 1.0)) for key in METRICS}
            for method, factor in (("n4", 0.7), ("other", 0.9)):
                after = {key: value * factor * float(rng.uniform(0.8, 1.2)) for key, value in before.items()}
                write_metrics(tmp_path / site, method, number, before, after)
                status.append((scan_of(number), method, "done", "n/a"))
                for key in METRICS:
                    values.append((site, number, method, key, before[key], after[key]))
            named = {"folder": site, "scan": scan_of(number), "participant_id": f"sub-{number:02}", "site": site}
            scans.append({**named, "source": "folder"})
        write_status(tmp_path / site, status)
    report.write_design(tmp_path, {"study": "test", "methods": ["n4", "other"], "scans": scans, "problems": []})
    return tmp_path, pd.DataFrame(values, columns=["site", "number", "method", "metric", "before", "after"])


def row_of(table: pd.DataFrame, **where) -> pd.Series:
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_before_and_after(study):
    out, values = study
    evaluation = evaluate(out)
    assert evaluation.problems == []
    for unit, mine in (("A", values[values["site"] == "A"]), (None, values)):
        mine = mine[(mine["metric"] == "cv_wm") & (mine["method"] == "other")]
        table = evaluation.overall[evaluation.overall["unit"] == "scan"] if unit is None else evaluation.sites
        where = {"metric": "cv_wm", "method": "other", "reference": "before"} | ({"site": unit} if unit else {})
        row = row_of(table, **where)
        changes = mine["after"] - mine["before"]
        assert row["n"] == row["n_scans"] == row["n_participants"] == len(mine)
        assert row["median_change"] == pytest.approx(changes.median())
        assert row["median_change_percent"] == pytest.approx((100 * changes / mine["before"]).median())
        assert row["p"] == pytest.approx(stats.wilcoxon(changes, method="exact").pvalue)
        assert (row["n_fell"], row["n_rose"]) == ((changes < 0).sum(), (changes > 0).sum())
        assert row["ci_low"] <= row["median_change"] <= row["ci_high"]


def test_methods_with_each_other_and_sites_as_units(study):
    out, values = study
    evaluation = evaluate(out)
    after = values[values["metric"] == "cjv"].pivot(index=["site", "number"], columns="method", values="after")
    changes = after["other"] - after["n4"]
    row = row_of(evaluation.overall, unit="scan", metric="cjv", method="other", reference="n4")
    assert row["median_change"] == pytest.approx(changes.median()) and row["n"] == 16
    assert row["n_rose"] == (changes > 0).sum()
    medians = after.groupby("site").median()
    row = row_of(evaluation.overall, unit="site", metric="cjv", method="other", reference="n4")
    assert row["n"] == 3 and row["median_method"] == pytest.approx(medians["other"].median())
    assert row["median_change"] == pytest.approx((medians["other"] - medians["n4"]).median())
    assert np.isnan(row["p"]) and "only 3 changes other than 0, fewer than 6" in row["note"]


def test_holm_runs_over_the_whole_table(study):
    out, _ = study
    evaluation = evaluate(out)
    for table, n_tests in ((evaluation.sites, 2 * 12), (evaluation.overall, 12)):
        tested = table[table["p"].notna()]
        assert len(tested) == n_tests  # 4 metrics x 3 comparisons; site C and the 3 sites are too few
        assert list(tested["p_holm"]) == pytest.approx(holm(list(tested["p"])))
        assert (tested["p_holm"] >= tested["p"]).all() and (tested["p_holm"] > tested["p"]).any()
    write_evaluation(out)
    entry = json.loads((out / "evaluation/sites.json").read_text())["p_holm"]
    assert "over the 24 p values in this table" in entry["Description"]


def test_what_is_undefined_or_failed_has_its_reason(study):
    out, _ = study
    undefined = {
        f"{part}.{key}": "white matter has fewer than 10 voxels" for part in ("before", "after") for key in METRICS
    }
    nothing = dict.fromkeys(METRICS)
    write_metrics(out / "A", "n4", 1, nothing, nothing, undefined)
    states = [(scan_of(i), method, "done", "n/a") for i in range(1, 9) for method in ("n4", "other")]
    states[3] = (scan_of(2), "other", "failed", "InvalidImageError: no voxel")
    write_status(out / "A", states)
    evaluation = evaluate(out)
    scans = evaluation.scans.set_index(["scan", "method"])
    assert "white matter has fewer than 10 voxels" in scans.loc[(scan_of(1), "n4"), "note"]
    failed = scans.loc[scan_of(2), "other"]
    assert failed["state"] == "failed" and failed["note"] == "InvalidImageError: no voxel"
    assert np.isnan(failed["cjv_before"])
    row = row_of(evaluation.sites, site="A", metric="cjv", method="other", reference="n4")
    assert (row["n"], row["n_undefined"], row["n_scans"]) == (6, 2, 8)
    kinds = {kind for kind, _, _ in evaluation.problems}
    assert kinds == {"failed", "output"}  # the failure, and that an earlier run's files are there
    write_evaluation(out)
    lines = (out / "evaluation/scans.tsv").read_text().splitlines()
    assert len({line.count("\t") for line in lines}) == 1 and "nan" not in "\n".join(lines).lower()
    assert ["failed", f"A/{scan_of(2)}, other", "InvalidImageError: no voxel"] in read_problems(out)


def test_verdicts_are_the_judges(study):
    """The judge of these files says what CJV says; a change below 2% is within its noise."""
    out, values = study
    after = values[values["metric"] == "cjv"].pivot(index=["site", "number"], columns="method", values="after")
    percents = 100 * (after["other"] / after["n4"] - 1)
    evaluation = evaluate(out)
    row = next(row for row in evaluation.verdicts if (row["method"], row["reference"]) == ("other", "n4"))
    counts = (row["n_better"], row["n_worse"], row["n_within_noise"], row["n_not_judged"])
    assert counts == ((percents < -2).sum(), (percents > 2).sum(), (percents.abs() <= 2).sum(), 0)
    assert row["verdict"] == "worse" and row["p_holm"] < 0.05
    assert row["tissue_unevenness_percent"] == pytest.approx(
        100 * np.expm1(np.log(after["other"] / after["n4"]).median())
    )
    at_b = [row for row in evaluation.site_verdicts if row["site"] == "B" and row["reference"] == "n4"]
    assert len(at_b) == 1 and at_b[0]["n_scans"] == 7
    text = write_evaluation(out).markdown.read_text()
    assert f"n4 against other: better in {counts[1]}, worse in {counts[0]}" in text
    assert (out / "evaluation/verdicts.tsv").read_text().count("\n") == 1 + 3 * 4


def test_verdicts_of_contrasts_are_not_mixed(study):
    """The last scan of site A as a T2w: a row of its own, overall and in the site."""
    out, _ = study
    for path in sorted((out / "A").rglob("*sub-08*T1w*")):
        path.rename(path.with_name(path.name.replace("T1w", "T2w")))
    texts = [*(out / "A").rglob("sub-08*.json"), out / "A/status.tsv", out / "evaluation/design.json"]
    for path in texts:
        path.write_text(path.read_text().replace("sub-08_T1w", "sub-08_T2w"))
    evaluation = evaluate(out)
    counts = {(row["suffix"], row["method"], row["reference"]): row["n_scans"] for row in evaluation.verdicts}
    assert len(evaluation.verdicts) == 6
    assert (counts["T1w", "n4", "acquired"], counts["T2w", "n4", "acquired"]) == (15, 1)
    at_a = {(row["suffix"], row["method"], row["reference"]): row["n_scans"] for row in evaluation.site_verdicts[:3]}
    assert at_a["T1w", "other", "n4"] == 7
    assert [row["n_scans"] for row in evaluation.site_verdicts if row["suffix"] == "T2w"] == [1, 1, 1]
    text = write_evaluation(out).markdown.read_text()
    assert "- T1w: n4 against" in text and "- T2w: n4 against" in text and "T2w 1 / 0 / 0" in text
    assert (out / "evaluation/verdicts.tsv").read_text().startswith("suffix\tsite\tmethod\treference\t")


def test_a_study_that_was_not_judged_says_so(study):
    out, _ = study
    for path in out.glob("*/judge"):
        shutil.rmtree(path)
    text = write_evaluation(out).markdown.read_text()
    assert "No scan was judged: the records are of an earlier version, which had no judge. \\`biascorr" in text
    assert "n4 against the acquired image: not judged." in text


def test_a_site_without_output_and_damaged_files_are_said(study):
    out, _ = study
    (out / "C").rename(out / "moved")
    next((out / "B/n4").rglob("*_metrics.json")).write_text("{")
    evaluation = evaluate(out)
    kinds = [kind for kind, _, _ in evaluation.problems]
    assert kinds.count("no output") == 1 and kinds.count("failed") == 3  # both methods of C, one of B
    assert any("not readable as JSON" in text for _, _, text in evaluation.problems)
    assert row_of(evaluation.sites, site="C", metric="cjv", method="n4", reference="before")["n"] == 0
    write_evaluation(out)


def test_the_summary_says_what_the_tables_say(study):
    out, values = study
    paths = write_evaluation(out)
    text = paths.markdown.read_text()
    mine = values[(values["metric"] == "cjv") & (values["method"] == "n4")]
    fell = int((mine["after"] < mine["before"]).sum())
    percent = (100 * (mine["after"] / mine["before"] - 1)).median()
    assert (
        f"CJV, n4 against before: lower by {abs(percent):.2g}% (median); lower in {fell}, higher in {16 - fell}" in text
    )
    assert "16 scans of 16 participants at 3 sites. n4: 16 corrected. other: 16 corrected." in text
    assert "1 site with fewer than 6 scans (C): too few for a test" in text
    page = paths.html.read_text()
    assert "data:image/png;base64," in page and "http" not in page.split("</style>")[1]
    assert page.count("<tr>") == 1 + 3 + 1 + 24 + 1 + 3
    assert paths.figure.read_bytes().startswith(b"\x89PNG")


def test_names_from_outside_cannot_act_in_the_pages(study):
    out, _ = study
    file = out / "evaluation/design.json"
    design = json.loads(file.read_text())
    for scan in design["scans"]:
        scan["site"] = scan["site"].replace("A", "<script>alert(1)</script>|`x`")
    design["problems"] = [["kind", "a\tb\nc", "[x](javascript:1) <img src=x>"]]
    file.write_text(json.dumps(design))
    paths = write_evaluation(out)
    assert "<script>" not in paths.html.read_text() and "<img src=x>" not in paths.html.read_text()
    text = paths.markdown.read_text()
    assert "\\<script>" in text and "\\[x\\](javascript:1) \\<img" in text
    assert read_problems(out) == [["kind", "a b c", "[x](javascript:1) <img src=x>"]]


def test_no_tissue_metrics_at_all(study):
    out, _ = study
    nothing = dict.fromkeys(METRICS)
    why = {f"before.{key}": "no tissue segmentation was asked for" for key in METRICS}
    for number in range(1, 17):
        site = "A" if number <= 8 else "B" if number <= 15 else "C"
        for method in ("n4", "other"):
            write_metrics(out / site, method, number, nothing, nothing, why)
    paths = write_evaluation(out)
    assert "undefined (" in paths.markdown.read_text() and not paths.figure.exists()
    assert (evaluate(out).overall["n"] == 0).all()


def test_without_a_design(tmp_path):
    with pytest.raises(BIDSError, match="no readable design"):
        evaluate(tmp_path)
