"""The group report, made from a small cohort of written files whose numbers are known."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from written_cohort import BEFORE, T1W, T2W, Page, read_table, write_scan, write_status

from biascorr_pydra.cohort import status
from biascorr_pydra.cohort.status import OUTDATED
from biascorr_pydra.errors import BIDSError
from biascorr_pydra.interfaces.cli.main import cli
from biascorr_pydra.metrics import METRICS
from biascorr_pydra.report import is_up_to_date, write_report
from biascorr_pydra.report.cohort.findings import find
from biascorr_pydra.report.collect import Cohort, Result, collect
from biascorr_pydra.report.table import Change, comparison_way, tally

# --- the question whether it is up to date


def test_asking_whether_a_report_is_up_to_date_writes_nothing(out, cohort):
    before = sorted(out.rglob("*"))
    assert not is_up_to_date(out)
    assert sorted(out.rglob("*")) == before
    assert not is_up_to_date(out / "no such folder")


def test_a_table_that_cannot_be_read_stops_no_question(out, cohort, monkeypatch):
    write_report(out, scan_pages=False)

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert not is_up_to_date(out)


def test_changed_participants_make_the_report_out_of_date(out, cohort, tmp_path):
    """participants.tsv of the source data set names the sites; a table beside it does not count."""
    raw = tmp_path / "raw"
    raw.mkdir()
    table = raw / "participants.tsv"
    table.write_text("participant_id\tsite\nsub-01\tNYU\n")
    link = {"Name": "n4", "BIDSVersion": "1.11.0", "DatasetLinks": {"raw": os.path.relpath(raw, out / "n4")}}
    (out / "n4/dataset_description.json").write_text(json.dumps(link))
    write_report(out, scan_pages=False)
    assert is_up_to_date(out)
    (raw / "phenotypes.tsv").write_text("participant_id\tsite\nsub-01\tOHSU\n")
    assert is_up_to_date(out)
    table.write_text("participant_id\tsite\nsub-01\tKKI\n")  # of the same size
    assert not is_up_to_date(out)
    write_report(out, scan_pages=False)
    assert is_up_to_date(out)
    assert "KKI" in (out / "metrics.tsv").read_text()
    table.unlink()
    assert not is_up_to_date(out)


def test_a_report_is_up_to_date_until_something_changes(out, cohort):
    write_report(out, scan_pages=False)
    assert is_up_to_date(out)
    write_scan(out, method="ubc", after={"cjv": 0.123})
    assert not is_up_to_date(out)
    write_report(out, scan_pages=False)
    (out / "metrics.tsv").unlink()
    assert not is_up_to_date(out)


def test_a_report_with_ratings_is_up_to_date_until_these_change(out, cohort):
    table = out / "given.tsv"
    table.write_text(f"scan\trating\n{T1W}\taccept\n")
    write_report(out, ratings=table, scan_pages=False)
    assert is_up_to_date(out)
    kept = out / "reports/ratings.tsv"
    kept.write_text(kept.read_text().replace("accept", "exclude"))
    assert not is_up_to_date(out)
    write_report(out, scan_pages=False)
    assert is_up_to_date(out)
    kept.unlink()
    assert not is_up_to_date(out)


# --- the table


def test_table_has_the_values_of_the_metrics_files(out, cohort):
    rows = read_table(write_report(out).metrics_tsv)
    assert [(row["scan"], row["method"]) for row in rows] == [*cohort, (T2W, "ubc")]
    for row in rows[:3]:
        record = cohort[row["scan"], row["method"]]
        for part in ("before", "after"):
            for key, value in record[part].items():
                assert row[f"{key}_{part}"] == ("n/a" if value is None else repr(value))
        assert {key: float(row[key]) for key in record["field"]} == record["field"]
        assert {step: float(row[f"runtime_{step}_s"]) for step in record["runtime_s"]} == record["runtime_s"]
    assert rows[0]["participant_id"] == "sub-01"
    assert (rows[0]["session_id"], rows[2]["session_id"]) == ("ses-1", "n/a")
    assert [row["state"] for row in rows] == ["done", "done", "done", "failed"]
    assert rows[3]["cjv_before"] == rows[3]["cjv_after"] == "n/a"


def test_data_dictionary_covers_every_column(out, cohort):
    write_scan(out, method="n4", metrics={"before": BEFORE | {"new thing": 2}, "runtime_s": {"upload": 1.5}})
    paths = write_report(out)
    dictionary = json.loads(paths.metrics_json.read_text())
    rows = read_table(paths.metrics_tsv)
    assert list(rows[0]) == list(dictionary)
    assert rows[0]["new_thing_before"] == "2.0"
    assert rows[0]["runtime_upload_s"] == "1.5"
    for entry in dictionary.values():
        assert entry["LongName"]
        assert entry["Description"]
    assert dictionary["cjv_after"]["Description"] == METRICS["cjv"].definition
    assert dictionary["cjv_after"]["Direction"] == "lower"
    assert dictionary["runtime_correct_s"]["Units"] == "s"


def test_text_cannot_break_the_table(out):
    write_scan(out, metrics={"method_version": "1\t2\nnext", "segmentation": {"method": 'a"b', "image": "\tc"}})
    write_status(out)
    rows = read_table(write_report(out).metrics_tsv)
    assert len(rows) == 1
    assert rows[0]["method_version"] == "1 2 next"
    assert rows[0]["segmentation"] == 'a"b, c'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", True, [1], None])
def test_what_is_not_a_finite_number_is_undefined(value):
    assert Result(T1W, "n4", record={"before": {"cjv": value}}).number("before", "cjv") is None


@pytest.mark.parametrize(
    ("key", "before", "after", "percent", "way"),
    [
        ("cjv", 0.8, 0.6, -25, "lower"),
        ("cjv", 0.8, 0.9, 12.5, "higher"),
        ("cjv", 0.8, 0.8004, 0.05, "unchanged"),
        ("cnr", -2.0, -3.0, -50, "lower"),
        ("wm_gm_contrast", 0.2, 0.1, -50, "lower"),
        ("cjv", 0.0, 0.1, None, None),
        ("cjv", None, 0.1, None, None),
    ],
)
def test_change(key, before, after, percent, way):
    change = Change(key, before, after)
    assert change.percent == (None if percent is None else pytest.approx(percent))
    assert change.way == way


def test_tally_counts_both_ways_and_leaves_undefined_out():
    afters = [0.4, 0.7, 0.88, None]
    results = [Result(T1W, "n4", record={"before": {"cjv": 0.8}, "after": {"cjv": after}}) for after in afters]
    changes = tally(results, "cjv")
    assert (changes.n, changes.counts) == (3, {"lower": 2, "higher": 1})
    assert changes.median_percent == pytest.approx(-12.5)


# --- the page


def test_nothing_yet_and_no_folder(out):
    paths = write_report(out)
    assert "Nothing has been corrected here yet" in Page(paths.html).text
    assert read_table(paths.metrics_tsv) == []
    assert "cjv_before" in json.loads(paths.metrics_json.read_text())
    with pytest.raises(BIDSError, match="no such folder"):
        write_report(out / "nowhere")


# --- missing and damaged files


def test_damaged_records_are_reported(out, cohort):
    (out / "n4/sub-02/anat/sub-02_desc-T2w_metrics.json").write_text('{"before": ')
    (out / "ubc/sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_T1w.json").write_text("[1]")
    (out / "ubc/dataset_description.json").unlink()
    paths = write_report(out)
    text = Page(paths.html).text
    assert "not readable as JSON" in text
    assert "done according to status.tsv, but no readable metrics file names it" in text
    assert "a JSON object is needed, not a list" in text
    assert "not a BIDS data set" in text
    rows = read_table(paths.metrics_tsv)
    assert [row["cjv_after"] for row in rows] == ["0.6", "0.9", "n/a", "n/a"]
    outcome = CliRunner().invoke(cli, ["report", str(out), "--no-scan-pages"])
    count = len(read_table(out / "reports/problems.tsv"))
    assert outcome.exit_code == 0 and count >= 4
    assert f"Problems with files: {count};" in outcome.stderr


def test_records_of_other_shapes_are_not_fatal(out):
    odd = {
        "before": [1],
        "after": "x",
        "field": 3,
        "undefined": ["a"],
        "segmentation": None,
        "runtime_s": 5,
        "warnings": 7,
    }
    write_scan(out, metrics=odd | {"source": 12})
    write_status(out)
    paths = write_report(out)
    assert "does not say which source it belongs to" in Page(paths.html).text
    assert read_table(paths.metrics_tsv)[0]["scan"] == T1W


def test_status_is_read_as_it_was_written(out, cohort):
    reasons = [result.reason for result in collect(out).results if result.failed]
    assert reasons == ['sub-02_T2w.nii.gz: "bad" <script>alert(1)</script>']
    (out / "status.tsv").write_text("scan\tmethod\n")
    assert "has no column reason, state" in Page(write_report(out).html).text
    (out / "status.tsv").unlink()
    text = Page(write_report(out).html).text
    assert "so that failures are not known" in text
    assert "of 3 status.tsv does not say what became of them" in text


def test_an_earlier_result_does_not_hide_a_failure(out, cohort):
    write_status(out, (T1W, "n4", "failed", "no space"))
    paths = write_report(out)
    row = read_table(paths.metrics_tsv)[0]
    assert (row["state"], row["cjv_after"]) == ("failed", "n/a")
    text = Page(paths.html).text
    assert "no space" in text
    assert "an earlier run's files are there, not shown" in text


# --- which way a metric went


def test_a_comparison_that_is_no_change_is_called_so():
    def word(*afters, before=1.0):
        pairs = [Result(f"sub-{i}_T1w.nii.gz", "n4", record={"before": {"cjv": before}, "after": {"cjv": after}})
                 for i, after in enumerate(afters)]  # fmt: skip
        row = next(row for row in find(Cohort("c", pairs, []), 3.5).comparisons if row["metric"] == "cjv")
        return comparison_way(row)

    assert word(*[1.0004] * 8) == "unchanged"  # by 0.04%, in all eight: consistent, and nothing to speak of
    assert word(*[1.0] * 8) == "unchanged"
    assert word(0.9, 0.95, 0.98, 1.02, 1.03, 1.05, 1.08, 1.1) == "unchanged within noise"
    assert word(*[1.1, 1.2] * 4) == "higher"
    assert word(*[0.9, 0.8] * 4) == "lower"
    assert word(None, None) == ""


# --- results of other settings


def test_results_of_other_settings_are_named(out, cohort, monkeypatch):
    write_status(
        out, (T1W, "n4", "cached", OUTDATED), (T1W, "ubc", "rejected", f"weak; {OUTDATED}"),
        (T2W, "n4", "done", "n/a"), (T2W, "ubc", "waiting", "n/a"),
    )  # fmt: skip
    paths = write_report(out, scan_pages=False)
    text, contents = Page(paths.html).text, json.loads(paths.everything.read_text())
    name = "sub-01_ses-1_T1w"
    assert "2 of 4 corrections were made with other settings than those of the last run" in text
    assert f"take them as they are: {name} (n4), {name} (ubc)." in text
    assert "A part of the cohort. 1 of 4 corrections had not been made" in text
    assert "PRELIMINARY: 2 corrections of this cohort had been made with other settings." in text
    assert (contents["Complete"], contents["Waiting"]) == (False, 3)
    assert contents["OtherSettings"] == [f"{T1W}, n4", f"{T1W}, ubc"]
    # Once a run has reached the one, the other alone is old.
    monkeypatch.setattr(status, "outdated", lambda folder: {(T1W, "n4"): False, (T1W, "ubc"): True})
    results = {(result.scan, result.method): result for result in collect(out).results}
    assert (results[T1W, "n4"].state, results[T1W, "n4"].reason) == ("done", "n/a")
    assert [key for key, result in results.items() if result.outdated] == [(T1W, "ubc")]
