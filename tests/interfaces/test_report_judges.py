"""What the report's faces judge, and what they say of it."""

import json
import os

from click.testing import CliRunner
from judged_cohort import T1W

from biascorr_pydra import lock
from biascorr_pydra.interfaces import judging
from biascorr_pydra.interfaces.cli import cohort


def report(out):
    return CliRunner().invoke(cohort.report, [str(out), "--no-scan-pages"])


def test_the_report_of_an_old_folder_judges_it_once_and_says_so(delivery, phantom):
    delivery.put("n4", phantom.bias)
    done = report(delivery.out)
    assert done.exit_code == 0, done.output
    assert "judged 0 of 1\njudged 1 of 1\n" in done.stderr and delivery.record().is_file()
    assert "judged" not in report(delivery.out).stderr


def test_a_folder_whose_status_table_is_lost_is_judged(delivery, phantom):
    delivery.put("n4", phantom.bias)
    (delivery.out / "report.html").write_text("an earlier report")
    assert "NOT JUDGED" not in report(delivery.out).stderr and delivery.record().is_file()


def test_what_cannot_be_judged_is_named_and_the_report_is_made(delivery, phantom):
    delivery.put("n4", phantom.bias)
    corrected = delivery.out / "n4" / T1W.replace("_T1w", "_desc-preproc_T1w")
    corrected.write_bytes(bytes(corrected.stat().st_size))
    done = report(delivery.out)
    assert f"NOT JUDGED  {T1W}\n        UnreadableImageError: {corrected}" in done.stderr
    assert (delivery.out / "report.html").is_file()


def test_while_a_run_is_at_work_it_is_left_to_judge(delivery, phantom):
    delivery.put("n4", phantom.bias)
    for folder in (delivery.out, delivery.out.parent):  # a study's run holds the study's folder, too
        with lock.exclusive(folder, {}):
            assert "judged" not in report(delivery.out).stderr
        assert not delivery.record().exists()


def test_no_run_begins_while_scans_are_judged_and_a_killed_one_is_not_forgotten(delivery, phantom, monkeypatch):
    delivery.put("n4", phantom.bias)
    killed = {"run_id": "killed"}
    (delivery.out / lock.FOLDER).mkdir()
    (delivery.out / lock.FOLDER / "run.json").write_text(json.dumps(killed))
    held = []
    monkeypatch.setattr(judging, "judge_rest", lambda out_dir, **options: held.append(lock.alive(out_dir)) or {})
    assert report(delivery.out).exit_code == 0
    assert held == [True] and not lock.alive(delivery.out) and lock.current(delivery.out) == killed


def test_a_folder_that_cannot_be_written_to_is_said_in_one_sentence(delivery, phantom, monkeypatch):
    for scan in (T1W, T1W.replace("01", "02")):
        delivery.put("n4", phantom.bias, scan=scan)
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != delivery.out)
    done = report(delivery.out)
    assert done.exit_code == 0 and done.stderr.count("NOT JUDGED") == 1
    assert f"{delivery.out}: the output folder is not writable" in done.stderr and "judged 0" not in done.stderr
