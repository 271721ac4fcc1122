"""The last step of a cohort: how many CPUs it asks for, and uses."""

import pytest
from tiny_cohort import implementation, settings

from biascorr_pydra import report
from biascorr_pydra.cohort import plan_correction
from biascorr_pydra.interfaces.pydra import cohort, cohort_hooks
from biascorr_pydra.interfaces.pydra.cohort_hooks import cpus_for_report
from biascorr_pydra.interfaces.pydra.run import make_worker
from biascorr_pydra.resources import available, declared

OPTIONS = {"resources": (), "worker_option": (), "n_procs": None}


@pytest.mark.parametrize(
    ("options", "cpus"),
    [
        ({"worker": "lanes", "n_procs": 3}, 3),
        ({"worker": "lanes", "n_procs": 3, "resources": ("report.cpus=2",)}, 2),
        ({"worker": "cf", "n_procs": 5}, 5),
        ({"worker": "debug"}, available().cpus),
        ({"worker": "slurm_resources"}, 1),  # another machine: what is asked for is waited for
    ],
)
def test_the_report_has_what_the_worker_may_use(options, cpus):
    assert cpus_for_report(make_worker(OPTIONS | options)) == cpus


def test_the_step_asks_for_what_it_uses(monkeypatch, tmp_path):
    used = []
    monkeypatch.setattr(cohort, "judge_aloud", lambda *arguments: None)
    monkeypatch.setattr(
        report,
        "write_report",
        lambda out_dir, *, scan_pages, n_procs: used.append(n_procs) or report.ReportPaths.inside(out_dir),
    )
    task = cohort.WriteReport(out_dir=str(tmp_path), rows=[], run_id="a", cpus=3)
    assert declared(task).cpus == 3
    cohort.WriteReport(out_dir=str(tmp_path), rows=[], run_id="a", cpus=3)(
        worker="debug", cache_root=tmp_path / "cache"
    )
    assert used == [3]


def test_the_outcome_is_written_whatever_the_judge_does(monkeypatch, tmp_path):
    monkeypatch.setattr(cohort, "judge_aloud", lambda *arguments: [][0])
    task = cohort.WriteReport(out_dir=str(tmp_path), rows=[["a.nii.gz", "n4", "done", "n/a"]], run_id="a")
    with pytest.raises(Exception, match="index out of range"):
        task(worker="debug", cache_root=tmp_path / "cache")
    assert "a.nii.gz\tn4\tdone" in (tmp_path / "status.tsv").read_text()


def test_the_end_of_a_run_is_written_before_the_judge_and_tells_of_the_workflows_error(
    tiny, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(cohort_hooks, "judge_aloud", lambda *arguments: [][0])
    task = cohort.CorrectBids(bids_dir=tiny, out_dir=tmp_path / "out", method=["n4"], run_id="run")
    with pytest.raises(IndexError):
        cohort_hooks.hooks.finish(task, tmp_path / "cache", lambda again: RuntimeError("no"), OSError("no room"))
    assert "The workflow ended with an error: OSError: no room\n" in capsys.readouterr().err
    assert "failed\tRuntimeError: no" in (tmp_path / "out/status.tsv").read_text()


def test_scans_that_cannot_be_begun_are_not_sent_to_be_judged(tiny, tmp_path, monkeypatch):
    plan = plan_correction(settings(tiny, tmp_path / "out"), implementation)
    broken = next(path for path in tiny.rglob("*_T2w.nii.gz"))
    broken.unlink()
    broken.symlink_to(tmp_path / "gone")
    monkeypatch.setattr(cohort, "unjudged", lambda out_dir: plan.jobs)
    plan = plan_correction(settings(tiny, tmp_path / "out"), implementation, rerun=True)
    assert list(plan.problems) == [broken.relative_to(tiny).as_posix()]
    assert cohort.left_to_judge(plan, "run") == []
