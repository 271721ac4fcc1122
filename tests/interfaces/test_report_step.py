"""The last step of a cohort: how many CPUs it asks for, and uses."""

import pytest

from biascorr_pydra import report
from biascorr_pydra.interfaces.pydra import cohort
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
