"""The lanes worker: what runs where and when, what a death costs, and that the cache is Pydra's own."""

import itertools
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import lane_tasks
import pytest
from pydra.engine import Submitter

from biascorr_pydra.interfaces.pydra.results import error_line
from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.engine import checksum_of, stored_result
from biascorr_pydra.workers.lanes import pool
from biascorr_pydra.workers.lanes.worker import LanesWorker


@pytest.fixture
def submit(tmp_path, monkeypatch):
    """Run a task on lanes with the given options; the result, errored or not."""
    monkeypatch.setenv("LOADS", str(tmp_path / "loads"))

    def run(task, cache="cache", **options):
        worker = LanesWorker(**{"n_procs": 4, "gpus": 0, "mem_gb": 8} | options)
        with Submitter(worker=worker, cache_root=tmp_path / cache) as submitter:
            return submitter(task, raise_errors=False, rerun=False)

    return run


def overlapping(runs):
    """Pairs of runs that were going on at the same time."""
    return [(a, b) for a, b in itertools.combinations(runs, 2) if a["began"] < b["ended"] and b["began"] < a["ended"]]


def test_two_gpus_run_two_tasks_at_a_time_each_on_its_own(submit, tmp_path):
    runs = submit(lane_tasks.Spread(kind="gpu", numbers=[1, 2, 3, 4, 5, 6], pause_s=0.2), gpus=2).outputs.out
    assert [run["number"] for run in runs] == [1, 2, 3, 4, 5, 6]
    assert {run["devices"] for run in runs} == {"0", "1"}
    assert overlapping(runs) and all(a["devices"] != b["devices"] for a, b in overlapping(runs))
    loads = (tmp_path / "loads").read_text().split()
    assert sorted(loads) == sorted({str(run["pid"]) for run in runs}) and len(loads) == 2  # once in each lane


def test_cpu_tasks_see_no_gpu_and_a_nodes_spec_replaces_its_tasks(submit):
    runs = submit(lane_tasks.Spread(kind="cpu", numbers=[1, 2, 3], pause_s=0.1), gpus=2).outputs.out
    assert {run["devices"] for run in runs} == {""}
    runs = submit(lane_tasks.Spread(kind="node", numbers=[1, 2]), gpus=("5",)).outputs.out
    assert {run["devices"] for run in runs} == {"5"}


def test_an_override_replaces_what_the_task_says(submit):
    task = lane_tasks.Spread(kind="cpu", numbers=[1, 2])
    runs = submit(task, gpus=1, overrides={"cpu": {"gpus": 1}}).outputs.out
    assert {run["devices"] for run in runs} == {"0"}


def test_memory_is_respected_as_a_function_of_the_task(submit):
    runs = submit(lane_tasks.Spread(kind="large", numbers=[1, 2, 0], pause_s=0.3), mem_gb=2).outputs.out
    assert {(a["number"], b["number"]) for a, b in overlapping(runs)} <= {(1, 0), (2, 0), (0, 1), (0, 2)}


@pytest.mark.parametrize(
    ("memory_gb", "batches"), [(8, ["[1, 2, 13]", "[4, 5, 6]"]), (2, ["[1, 2]", "[4, 13]", "[5, 6]"])]
)
def test_a_gpu_is_given_several_at_once_within_memory(submit, tmp_path, memory_gb, batches):
    task = lane_tasks.Spread(kind="batch", numbers=[0, 1, 2, 13, 4, 5, 6], pause_s=0.2)
    runs = submit(task, gpus=1, mem_gb=memory_gb, gpu_batch=3).outputs.out
    assert [run["number"] for run in runs] == [0, 1, 2, 13, 4, 5, 6] and not overlapping(runs)
    assert (tmp_path / "loads").read_text().splitlines() == batches  # 0 found the GPU free, and went alone


def test_what_can_never_be_given_fails_at_once(submit):
    began = time.monotonic()
    result = submit(lane_tasks.Spread(kind="gpu", numbers=[1, 2]))
    assert result.errored and "'gpu' asks for more than this machine can ever give" in error_line(result)
    assert "1 GPUs (there are 0)" in error_line(result) and time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raise", "ValueError: a bad value in raise"),
        ("exit", "SystemExit: 3"),
        ("die", "LaneDiedError: the process that ran it was killed (SIGKILL; out of memory?); tried 2 times"),
    ],
)
def test_what_goes_wrong_is_said_and_the_others_finish(submit, tmp_path, how, words):
    task = lane_tasks.Ways(hows=["well", how, "fine"], mark=str(tmp_path / "mark"))
    result = submit(task, n_procs=1)
    assert result.errored and words in "".join(result.errors["error message"])
    again = submit(lane_tasks.Ways(hows=["well", "fine"], mark=str(tmp_path / "mark")))
    assert again.outputs.out == ["well", "fine"]


def test_a_lane_that_dies_loses_only_its_job_which_is_tried_again(submit, tmp_path):
    mark = tmp_path / "mark"
    result = submit(lane_tasks.Ways(hows=["well", "die once", "fine"], mark=str(mark)))
    assert mark.exists() and result.outputs.out == ["well", "die once", "fine"]
    assert not list((tmp_path / "cache").glob("*.lock"))


def test_a_task_is_stopped_at_its_limit(submit, tmp_path):
    task = lane_tasks.Ways(hows=["sleep", "well"], mark=str(tmp_path / "mark"))
    result = submit(task, overrides={"misbehave": {"minutes": 0.05}})
    assert "took longer than 0.05 minutes, and was stopped; tried 1 time" in "".join(result.errors["error message"])


def test_a_workflow_that_says_its_needs_runs_in_one_lane(submit, tmp_path):
    (tmp_path / "file").write_text("four")
    log = tmp_path / "log"
    task = lane_tasks.Pieces(numbers=[1, 2, 3], file=tmp_path / "file", log=str(log), hows=["well", "raise", "well"])
    result = submit(task)
    assert result.errored and "a bad value in raise" in error_line(result)
    assert log.read_text() == "x"  # one count for all: the same work is done once
    task = lane_tasks.Pieces(numbers=[1, 3], file=tmp_path / "file", log=str(log), hows=["well", "well"])
    outputs = submit(task).outputs
    assert outputs.count == [4, 4] and log.read_text() == "x"
    for first, second in zip(outputs.first, outputs.second, strict=True):
        assert first["pid"] == second["pid"] and second["devices"] == ""


def test_steps_are_placed_one_by_one_where_an_override_names_one(submit, tmp_path):
    (tmp_path / "file").write_text("four")
    task = lane_tasks.Pieces(numbers=[1, 2], file=tmp_path / "file", log=str(tmp_path / "log"), hows=["well"] * 2)
    outputs = submit(task, gpus=1, overrides={"second": {"gpus": 1}}).outputs
    assert {run["devices"] for run in outputs.second} == {"0"} and {run["devices"] for run in outputs.first} == {""}


def test_the_cache_is_pydras_own(submit, tmp_path):
    (tmp_path / "file").write_text("seven..")
    log = tmp_path / "log"
    task = lane_tasks.Count(file=tmp_path / "file", log=str(log))
    assert submit(task).outputs.out == 7
    assert task(worker="debug", cache_root=tmp_path / "cache").out == 7 and log.read_text() == "x"
    other = lane_tasks.Count(file=tmp_path / "file", log=str(tmp_path / "log2"))
    other(worker="debug", cache_root=tmp_path / "cache")
    assert submit(other).outputs.out == 7 and (tmp_path / "log2").read_text() == "x"
    stored = tmp_path / "cache" / checksum_of(task) / "_result.pklz"
    assert stored.stat().st_size < 1500  # classes by name
    code = f"import pickle; print(pickle.load(open({str(stored)!r}, 'rb')).outputs.out)"
    environment = {**os.environ, "PYTHONPATH": str(Path(lane_tasks.__file__).parent)}
    read = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert read.stdout.strip() == "7", read.stderr


def test_what_failed_before_is_done_again_in_a_workflow_and_alone(submit, tmp_path):
    (tmp_path / "file").write_text("four")
    for kind in ("whole", "steps"):
        hows, log = ["until marked", "well"], str(tmp_path / f"log-{kind}")
        task = lane_tasks.Pieces(numbers=[1, 2], file=tmp_path / "file", log=log, hows=hows)
        options = {} if kind == "whole" else {"gpus": 1, "overrides": {"second": {"gpus": 1}}}
        Path(log).unlink(missing_ok=True)
        first = submit(task, **options)
        assert first.errored and "not yet" in error_line(first), error_line(first)
        Path(log).write_text("marked")
        again = submit(task, **options)
        assert not again.errored, error_line(again)
        assert again.outputs.count == [4, 4]


def test_a_failed_job_is_left_for_pydra_crash(submit, tmp_path):
    task = lane_tasks.Misbehave(how="raise", mark="")
    submit(task)
    folder = tmp_path / "cache" / checksum_of(task)
    assert stored_result(checksum_of(task), [tmp_path / "cache"]).errored
    assert "a bad value" in "".join(pickle.loads((folder / "_error.pklz").read_bytes())["error message"])
    assert pickle.loads((folder / "_job.pklz").read_bytes()).task.how == "raise"


def test_lanes_end_with_the_driver_however_it_ends(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import lane_tasks\n"
        "from pydra.engine import Submitter\n"
        "from biascorr_pydra.workers.lanes.worker import LanesWorker\n"
        "with Submitter(worker=LanesWorker(n_procs=2, gpus=0), cache_root=sys.argv[2]) as submitter:\n"
        "    submitter(lane_tasks.Spread(kind='cpu', numbers=[1, 2], pause_s=60))\n"
    )
    arguments = [sys.executable, "-c", code, str(Path(lane_tasks.__file__).parent), str(tmp_path)]
    driver = subprocess.Popen(arguments)
    lanes = wait_for(lambda: len(pids := lanes_of(driver.pid)) == 2 and pids)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert wait_for(lambda: not [pid for pid in lanes if Path(f"/proc/{pid}").exists()])


def wait_for(condition, limit_s=60):
    deadline = time.monotonic() + limit_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)
    return answer


def lanes_of(driver: int) -> list[int]:
    arguments = ["ps", "-ww", "--ppid", str(driver), "-o", "pid=,args="]
    listed = subprocess.run(arguments, capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "workers.lanes.lane" in line]


def test_a_lane_that_cannot_be_started_fails_its_job_and_no_other(submit, tmp_path, monkeypatch):
    started = []

    class Scarce(pool.Lane):
        def __init__(self, *given):
            started.append(given)
            if len(started) in (1, 2):
                raise OSError(12, "Cannot allocate memory")
            super().__init__(*given)

    monkeypatch.setattr(pool, "Lane", Scarce)
    runs = submit(lane_tasks.Spread(kind="cpu", numbers=[1, 2, 3]), n_procs=2).outputs.out
    assert [run["number"] for run in runs] == [1, 2, 3] and len(started) >= 3


def test_a_file_that_is_gone_from_the_cache_is_made_again(submit, tmp_path):
    made = submit(lane_tasks.Make(text="four")).outputs.out
    Path(str(made)).unlink()
    assert Path(str(submit(lane_tasks.Make(text="four")).outputs.out)).read_text() == "four"


def test_gpus_are_named_counted_or_found(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    names = {given: LanesWorker(gpus=given).gpus for given in ("0,2", 1, 2, 3, None, ("GPU-a",))}
    assert names == {
        "0,2": ("0", "2"), 1: ("3",), 2: ("3", "5"), 3: ("0", "1", "2"), None: ("3", "5"), ("GPU-a",): ("GPU-a",),
    }  # fmt: skip


def test_a_file_where_the_user_stands_is_not_taken_for_a_module(submit, tmp_path, monkeypatch):
    (tmp_path / "resource.py").write_text("raise SystemExit('the wrong resource')")
    monkeypatch.chdir(tmp_path)
    assert submit(lane_tasks.Spread(kind="cpu", numbers=[1])).outputs.out[0]["number"] == 1


def test_a_pickled_worker_holds_no_process():
    worker = LanesWorker(n_procs=3, gpus=2, mem_gb=1, overrides={"a": {"cpus": 2}})
    again = pickle.loads(pickle.dumps(worker))
    assert again.capacity == Resources(cpus=3, gpus=2, mem_gb=1) and again.overrides == worker.overrides
    assert again.loop is None and again.peaks_gb() == []
