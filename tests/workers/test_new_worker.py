"""A worker added by the recipe, whether a worker is remote, and what follows from that for locks."""

import json
import pickle
import pkgutil
from importlib import import_module
from pathlib import Path

import attrs
import lane_tasks
import pydra.workers
import pytest
from click.testing import CliRunner
from pydra.engine import Submitter
from toy_worker.worker import ToyWorker

import biascorr_pydra.workers
from biascorr_pydra.errors import ResourceError
from biascorr_pydra.interfaces.pydra.run import run
from biascorr_pydra.workers import PlacingWorker, is_remote
from biascorr_pydra.workers.engine import Worker

HERE = Path(__file__).parent


@pytest.fixture
def installed(monkeypatch):
    """The toy worker, where a package would install it."""
    folder = str(HERE / "toy_worker" / "namespace")
    monkeypatch.setattr(pydra.workers, "__path__", [*pydra.workers.__path__, folder])


# --- the recipe


def test_a_new_worker_is_found_by_its_name_and_runs_tasks_and_workflows(installed, tmp_path):
    with Submitter(worker="toy", cache_root=tmp_path / "cache") as submitter:
        runs = submitter(lane_tasks.Spread(kind="cpu", numbers=[1, 2]), raise_errors=True).outputs.out
        assert [run["number"] for run in runs] == [1, 2] and len({run["pid"] for run in runs}) == 2
        (tmp_path / "file").write_text("four")
        log = tmp_path / "log"
        piece = lane_tasks.Pieces(numbers=[1, 2], file=tmp_path / "file", log=str(log), hows=["well", "raise"])
        failed = submitter(piece, raise_errors=False)
        assert failed.errored and "a bad value in raise" in "".join(failed.errors["error message"])
        assert log.read_text() == "x"  # the same work is done once


def test_a_new_worker_refuses_fails_and_is_pickled_as_the_others(installed, tmp_path):
    worker = ToyWorker(mem_gb=2, overrides={"main": {"mem_gb": 3}})
    assert pickle.loads(pickle.dumps(worker)) == worker and worker.plugin_name() == "toy"
    with Submitter(worker=worker, cache_root=tmp_path / "cache") as submitter:
        with pytest.raises(ResourceError, match=r"3 GB of memory \(there are 2\)"):
            submitter(lane_tasks.OnCpu(number=1), raise_errors=True)
        assert type(pickle.loads(pickle.dumps(worker)).loop) is type(None)
        worker.overrides = {}
        died = submitter(lane_tasks.Misbehave(how="die", mark=str(tmp_path / "mark")), raise_errors=False)
        assert "ProcessDiedError: its process ended with code -9" in "".join(died.errors["error message"])


def test_every_folder_of_a_worker_has_its_file_where_pydra_looks():
    folders = [module.name for module in pkgutil.iter_modules(biascorr_pydra.workers.__path__) if module.ispkg]
    ours = {
        name: worker
        for name, worker in Worker.available_plugins().items()
        if worker.__module__.startswith("biascorr_pydra.")
    }
    assert {worker.__module__.split(".")[2] for worker in ours.values()} == set(folders) and len(folders) >= 3
    for name, worker in ours.items():
        assert issubclass(worker, PlacingWorker) and worker.plugin_name() == name.replace("_", "-")
        assert "remote" in vars(worker), f"{worker} does not say whether it is remote"


# --- remote or not


@attrs.define
class Cloud(Worker):
    """Somebody's worker, which says nothing."""

    def run(self, job, rerun=False):
        return job.run(rerun=rerun)


@attrs.define
class Laptop(Cloud):
    """Another, which says that it is none."""

    remote = False


@pytest.mark.parametrize(
    ("worker", "remote"),
    [("lanes", False), ("slurm-resources", True), ("dask-resources", True), ("debug", False), ("cf", False),
     ("slurm", True), ("sge", True), (Cloud, True), (Laptop, False)],
)  # fmt: skip
def test_a_worker_that_says_nothing_is_remote_but_pydras_own_local_ones(worker, remote):
    if worker == "dask-resources":
        pytest.importorskip("distributed")  # an extra
    worker = Worker.plugin(worker) if isinstance(worker, str) else worker
    assert is_remote(worker()) is remote


def test_a_worker_made_from_a_local_one_may_do_anything():
    class OverTheWire(Worker.plugin("debug")):
        pass

    assert is_remote(OverTheWire())


FLOW = '''
"""A workflow."""
import json
from pathlib import Path
from pydra.compose import python, workflow

@python.define
def Note(work: str) -> dict:
    return json.loads(Path(work, ".biascorr", "run.json").read_text())

@workflow.define(outputs=["facts"])
def Noted(work: str, x: int = 0) -> dict:
    """Note what is known of the run while it lasts."""
    return workflow.add(Note(work=work)).out
'''


@pytest.mark.parametrize("remote", [None, False])
def test_locks_of_a_killed_runs_jobs_stay_where_its_worker_may_be_remote(tmp_path, monkeypatch, remote):
    """A run killed before its jobs, on another host, had ended: only where they cannot go on is a lock removed."""
    says = "" if remote is None else f"    remote = {remote}\n"
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "cloud.py").write_text(
        "from pydra.workers.debug import DebugWorker\n"
        f"class Worker(DebugWorker):\n    '''Somebody's.'''\n{says}"
        "    @classmethod\n    def plugin_name(cls):\n        return 'debug'\n"  # Pydra asks this one's errors
    )
    monkeypatch.setattr(pydra.workers, "__path__", [*pydra.workers.__path__, str(tmp_path / "workers")])
    monkeypatch.delitem(import_module("sys").modules, "pydra.workers.cloud", raising=False)
    (tmp_path / "flow.py").write_text(FLOW)
    work = tmp_path / "work"
    arguments = [str(tmp_path / "flow.py"), "--worker", "cloud", "--work-dir", str(work), "--work", str(work)]
    first = CliRunner().invoke(run, arguments)
    assert first.exit_code == 0, first.output
    outlive = "'jobs_outlive_runs': True" in first.output
    # the run is killed instead: its run.json, as it was, and the lock of a job on another host
    (work / ".biascorr" / "run.json").write_text(json.dumps({"jobs_outlive_runs": outlive}))
    lock = work / "python-0123.lock"
    lock.write_text("17\nanother-host\n5\n")
    second = CliRunner().invoke(run, [*arguments, "--x", "1"])
    assert second.exit_code == 0 and "The last run was killed" in second.output, second.output
    assert outlive is (remote is None) and lock.exists() is (remote is None)
