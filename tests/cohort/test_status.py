"""The status table: rows, reasons, and what is kept of earlier runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_cohort import implementation, put, settings

from biascorr_pydra import bids, lock
from biascorr_pydra.bids import NORMALIZED
from biascorr_pydra.cohort import plan_correction, status
from biascorr_pydra.cohort.changes import replaced
from biascorr_pydra.cohort.status import Row
from biascorr_pydra.correction.options import CorrectionOptions
from biascorr_pydra.errors import BIDSError
from biascorr_pydra.images import nifti
from biascorr_pydra.interfaces.cli.main import cli


def test_status_gives_the_reason(published):
    job = published.jobs[1]
    bids.output_paths(job, published.settings.out_dir / "n4")["bias"].unlink()
    rows = status.collect(published, {(job.relative, "n4"): "ValueError: of\tsome\nkind"}, "first")
    assert [row.state for row in rows] == ["done", "failed", "done", "done", "done"]
    assert rows[1].reason == "ValueError: of some kind"
    lines = status.write(published.settings.out_dir, rows).read_text().splitlines()
    assert lines[0] == "scan\tmethod\tstate\treason"
    assert lines[2].split("\t") == [job.relative, "n4", "failed", "ValueError: of some kind"]


def table(out_dir):
    """status.tsv: scan -> (method, state, reason)."""
    lines = (out_dir / "status.tsv").read_text().splitlines()
    return {line.split("\t")[0]: tuple(line.split("\t")[1:]) for line in lines[1:]}


def test_a_run_begins_with_what_waits_what_is_done_and_what_cannot_be_done(tiny, tmp_path, phantom_file):
    plan = plan_correction(settings(tiny, tmp_path / "out"), implementation)
    scans = [job.relative for job in plan.jobs]
    bids.prepare_dataset(plan.out_dir / "n4", tiny, "n4", "test")
    put(plan.jobs[0], plan, phantom_file)
    (tiny / scans[1]).unlink()
    (tiny / scans[1]).symlink_to("nowhere")
    (tiny / "sub-02/anat/sub-02_part-phase_T1w.nii.gz").write_bytes(b"")
    plan = plan_correction(plan.settings, implementation)
    assert not status.has_begun(plan)
    status.begin(plan)
    assert status.has_begun(plan)
    states = {scan: row[1] for scan, row in table(plan.out_dir).items()}
    assert [states[scan] for scan in scans] == ["cached", "failed", "waiting", "waiting", "waiting"]
    phase = table(plan.out_dir)["sub-02/anat/sub-02_part-phase_T1w.nii.gz"]
    assert phase == ("n4", "skipped", "part-phase: its values are not intensities")
    other = plan_correction(replace(plan.settings, skull_strip="none"), implementation)
    assert not status.has_begun(other)  # the keys are others


@pytest.mark.parametrize(
    ("choices", "left"),
    [
        ({}, False),
        ({"participants": ("01", "02")}, True),
        ({"sessions": ("a",)}, True),
        ({"suffixes": ("T1w",)}, True),
    ],
)
def test_scans_that_left_the_data_set_leave_the_table_when_all_were_asked_for(tiny, tmp_path, choices, left):
    (tmp_path / "out").mkdir()
    rows = [Row("sub-03/anat/sub-03_T1w.nii.gz", "n4", "done"), Row("sub-03/x.nii", "ubc", "done")]
    status.write(tmp_path / "out", rows)
    status.begin(plan_correction(settings(tiny, tmp_path / "out", **choices), implementation))
    scans = table(tmp_path / "out")
    assert ("sub-03/anat/sub-03_T1w.nii.gz" in scans) is left
    assert "sub-03/x.nii" in scans  # another method's rows are not this run's to remove


def test_a_run_over_other_scans_forgets_nothing_of_the_last_ones(tiny, tmp_path):
    plans = [
        plan_correction(settings(tiny, tmp_path / "out", participants=(label,)), implementation)
        for label in ("01", "02")
    ]
    for plan in plans:
        status.begin(plan)
    assert all(status.has_begun(plan) for plan in plans)
    assert set(table(tmp_path / "out")) == {job.relative for plan in plans for job in plan.jobs}


def test_rows_are_in_the_order_of_scan_and_method_and_the_last_word_counts(tmp_path):
    status.write(tmp_path, [Row("b", "n4", "waiting"), Row("a", "ubc", "done"), Row("a", "n4", "done")])
    status.write(tmp_path, [Row("b", "n4", "failed", 'a tab\tand a quote"')])
    lines = (tmp_path / "status.tsv").read_text().splitlines()
    assert [line.split("\t")[:3] for line in lines[1:3]] == [["a", "n4", "done"], ["a", "ubc", "done"]]
    assert status.now(tmp_path)[0][2] == Row("b", "n4", "failed", 'a tab\tand a quote"')


def write_gate(plan, job, verdict, applied):
    path = plan.out_dir / plan.record_file(job, "n4")
    record = json.loads(path.read_text())
    record["gate"] = {"verdict": verdict, "reasons": ["a", "b"], "applied": applied}
    path.write_text(json.dumps(record))


def test_the_gates_verdicts_are_states_and_remarks(published):
    status.begin(published)
    write_gate(published, published.jobs[0], "rejected", "none")
    write_gate(published, published.jobs[1], "rejected", "ants-n4")
    write_gate(published, published.jobs[2], "negligible", "none")
    rows = status.collect(published, {}, "first")
    assert [(row.state, row.reason) for row in rows[:4]] == [
        ("rejected", "a; b; passed on as it is"),
        ("rejected", "a; b; corrected by ants-n4"),
        ("done", "negligible: a; b"),
        ("done", "n/a"),
    ]
    assert status.judged(published.out_dir, [Row(published.jobs[0].relative, "n4", "failed", "why")])[0].reason == "why"
    status.write(published.out_dir, rows)
    bids.output_paths(published.jobs[0], published.out_dir / "n4")["bias"].unlink()
    assert [row.state for row in status.now(published.out_dir)[0]][:3] == ["missing", "rejected", "done"]


def test_what_another_run_made_is_not_what_this_run_was_to_make(published):
    rows = status.collect(published, {}, "second")
    assert {(row.state, row.reason) for row in rows} == {("failed", "not run")}


def test_now_tells_waiting_from_done_interrupted_and_missing(tiny, tmp_path, phantom_file):
    plan = plan_correction(settings(tiny, tmp_path / "out"), implementation)
    status.begin(plan)
    put(plan.jobs[0], plan, phantom_file)
    states = lambda: [row.state for row in status.now(plan.out_dir)[0]]  # noqa: E731
    assert states() == ["done"] + ["interrupted"] * 4
    with lock.exclusive(plan.out_dir, {}):
        assert states() == ["done"] + ["waiting"] * 4
        assert "A run is going on" in status.now(plan.out_dir)[1]
    put(plan.jobs[1], plan, phantom_file)
    status.write(plan.out_dir, status.collect(plan, {}, "first"))
    bids.output_paths(plan.jobs[1], plan.out_dir / "n4")["bias"].unlink()
    assert states() == ["done", "missing"] + ["failed"] * 3
    put(plan.jobs[1], plan, phantom_file, key="other work")
    assert states() == ["done", "missing"] + ["failed"] * 3


def test_now_speaks_of_each_data_set_of_a_study_and_of_folders_without_a_table(tmp_path):
    with pytest.raises(BIDSError, match=r"no status\.tsv in this folder"):
        status.now(tmp_path)
    for site in ("KKI", "Caltech"):
        (tmp_path / site).mkdir()
        status.write(tmp_path / site, [Row("sub-1_T1w.nii.gz", "n4", "failed", "why")])
    bids.mark_study(tmp_path)
    assert [row.scan for row in status.now(tmp_path)[0]] == ["Caltech/sub-1_T1w.nii.gz", "KKI/sub-1_T1w.nii.gz"]


def test_what_is_normalized_is_not_called_corrected(tmp_path):
    scans = [Row("a", "n4", "done"), Row("b", NORMALIZED, "done"), Row("c", NORMALIZED, "failed", "why")]
    assert status.meaning("done", scans[:1]) == "corrected in the last run"
    assert status.meaning("done", scans) == "corrected or normalized in the last run"
    status.write(tmp_path, scans[1:])
    shown = CliRunner().invoke(cli, ["status", str(tmp_path)]).output
    assert "normalized in the last run" in shown and "not normalized, with the reason" in shown
    assert "corrected" not in shown


# --- a run with other settings


def test_what_was_done_with_other_settings_stays_done_until_it_is_replaced(published, phantom_file):
    jobs = published.jobs
    write_gate(published, jobs[1], "rejected", "none")
    (published.out_dir / bids.output_paths(jobs[2], published.out_dir / "n4")["bias"]).unlink()
    plan = plan_correction(replace(published.settings, skull_strip="none"), implementation)
    status.begin(plan)
    first = [("cached", status.OUTDATED), ("rejected", f"a; b; passed on as it is; {status.OUTDATED}")]
    states = table(plan.out_dir)
    assert [states[job.relative][1:] for job in jobs[:3]] == [*first, ("waiting", "n/a")]
    assert [row[2:] for row in status.now(plan.out_dir)[0][:3]] == [*first, ("interrupted", "n/a")]
    old = [(job.relative, "n4") for job in jobs if job != jobs[2]]
    assert status.outdated(plan.out_dir) == dict.fromkeys(old, True)
    put(jobs[0], plan, phantom_file)
    assert status.outdated(plan.out_dir) == {**dict.fromkeys(old, True), old[0]: False}
    rows = status.now(plan.out_dir)[0]
    assert [row[2:] for row in rows[:2]] == [("done", "n/a"), first[1]]
    # Begun once more, the one that is made again is done; the others still are as before.
    status.begin(plan_correction(plan.settings, implementation))
    assert [table(plan.out_dir)[job.relative][1:] for job in jobs[:2]] == [("cached", "n/a"), first[1]]


def test_results_that_are_made_again_as_they_were_are_not_of_other_settings(published):
    again = plan_correction(published.settings, implementation, rerun=True)
    assert len(again.pending) == len(published.jobs)
    assert replaced(again) == []
    status.begin(again)
    assert {row[1:] for row in table(again.out_dir).values()} == {("waiting", "n/a")}


@pytest.mark.parametrize(
    ("choices", "text", "change"),
    [
        ({"skull_strip": "none"}, "0.1 n4 7 no weights, gate 3", "--skull-strip was auto, is none"),
        (
            {"segmentation": "kmeans", "options": CorrectionOptions(gate=False)},
            "0.1 n4 7 no weights, gate 3",
            "--segmentation was atropos, is kmeans; --gate was true, is false",
        ),
        ({}, "0.1 n4 8 no weights, gate 3", "version or weights: was n4 7 no weights, is n4 8 no weights"),
        ({}, '0.1 n4 7 no weights, gate 3 {"spline_mm": 50.0}', "spline_mm was 200.0, is 50.0"),
    ],
)
def test_a_run_says_which_settings_changed(tiny, tmp_path, phantom_file, choices, text, change):
    def first(method, preset):
        parameters = ' {"spline_mm": 200.0}' if "spline_mm" in text else ""
        return f"0.1 n4 7 no weights, gate 3{parameters}"

    plan = plan_correction(settings(tiny, tmp_path / "out"), first)
    bids.prepare_dataset(plan.out_dir / "n4", tiny, "n4", "test")
    for job in plan.jobs[:3]:
        put(job, plan, phantom_file)
    assert replaced(plan_correction(plan.settings, first)) == []
    assert replaced(plan_correction(replace(plan.settings, **choices), lambda method, preset: text)) == [
        f"n4: 3 scans were done with other settings and will be made again ({change}). What is there stays until it is "
        "replaced."
    ]


def test_a_changed_scan_and_a_record_without_settings_are_told_from_changed_settings(published, phantom):
    nifti.save(phantom.image(dtype=np.float32), published.jobs[0].source)
    record = published.out_dir / published.record_file(published.jobs[1], "n4")
    content = json.loads(record.read_text())
    content["work"] = {key: value for key, value in content["work"].items() if key != "settings"} | {"key": "old"}
    record.write_text(json.dumps(content))
    reasons = ["the scan itself changed", "which ones is not recorded: an earlier version made it"]
    assert replaced(plan_correction(published.settings, implementation)) == [
        f"n4: 1 scan was done with other settings and will be made again ({reason}). What is there stays until it is "
        "replaced."
        for reason in reasons
    ]
