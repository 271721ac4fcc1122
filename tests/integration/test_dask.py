"""The dask-resources worker on real Dask clusters on loopback: its own, and one that was there before."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from dask_toys import Cohort, Deaths, Die, Hang, Models, Tell
from pydra.engine import Submitter
from small_cohort import SCANS

from biascorr_pydra.errors import InvalidParameterError, ResourceError
from biascorr_pydra.interfaces.pydra.cohort import CorrectBids
from biascorr_pydra.resources import Resources, requires
from biascorr_pydra.workers.dask import link, task
from biascorr_pydra.workers.dask.task import run_parcel, versions
from biascorr_pydra.workers.dask.worker import DaskResourcesWorker

pytestmark = pytest.mark.dask
HERE = Path(__file__).parent


class Cluster:
    """A scheduler and workers, each a process of its own, as somebody else would start them."""

    def __init__(self, folder: Path, workers: list[tuple[str, str, int]]):
        self.processes = []
        file = folder / "scheduler.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        deadline = time.monotonic() + 30
        while not (file.exists() and file.read_text().endswith("}")) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.file, self.address = file, json.loads(file.read_text())["address"]
        for device, resources, threads in workers:
            options = ("--nthreads", str(threads), "--resources", resources, "--no-dashboard", "--memory-limit", "2GB")
            scratch = ("--local-directory", str(folder))
            self._start("worker", self.address, *options, *scratch, CUDA_VISIBLE_DEVICES=device)

    def _start(self, kind: str, *arguments: str, **environment: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
        where = {"PYTHONPATH": str(HERE), "NO_ET": "1"}
        self.processes.append(
            subprocess.Popen(command, env=os.environ | where | environment, stderr=subprocess.DEVNULL)
        )

    def client(self):
        from distributed import Client

        client = Client(self.address, set_as_default=False)
        client.wait_for_workers(len(self.processes) - 1, timeout=60)
        return client

    def stop(self) -> None:
        parents = [psutil.Process(process.pid) for process in self.processes if process.poll() is None]
        for process in [*parents, *(child for parent in parents for child in parent.children(recursive=True))]:
            process.kill()
        for process in self.processes:
            process.wait(timeout=10)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    workers = [("0", "GPU=1 MEM_GB=2", 1), ("1", "GPU=1 MEM_GB=2", 1), *[("", "CPU=1 MEM_GB=2", 1)] * 2]
    started = Cluster(tmp_path_factory.mktemp("cluster"), workers)
    try:
        started.client().close()
        yield started
    finally:
        started.stop()


@pytest.fixture(params=["local", "existing"])
def make_worker(request):
    if request.param == "existing":
        address = request.getfixturevalue("cluster").address
        return lambda: DaskResourcesWorker(address=address)
    return lambda: DaskResourcesWorker(n_procs=2, gpus=2, mem_gb=8)


def run(task, worker, cache: Path):
    """The result, and how the worker looked before it was closed."""
    with Submitter(cache_root=cache, worker=worker) as submitter:
        result = submitter(task, raise_errors=False)
        return result, worker.link


def error_of(result) -> str:
    return "".join(result.errors["error message"])


def rows(log: Path) -> list[tuple[int, int, str, str, float, float]]:
    split = (line.split() for line in log.read_text().splitlines())
    return [(int(x), int(gpu), pid, device, float(begin), float(end)) for x, gpu, pid, device, begin, end in split]


def at_once(spans: list[tuple[float, float]]) -> int:
    return max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)


def ours() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "workers.dask.local" in " ".join(child.cmdline())]


def test_allocation_and_a_second_run(make_worker, tmp_path):
    log, task = tmp_path / "log", Cohort(log=str(tmp_path / "log"), n=14, bad=[])
    result, _ = run(task, make_worker(), tmp_path / "cache")
    assert not result.errored, error_of(result)
    logged = rows(log)
    gpu, cpu = ([row for row in logged if row[1] == wanted] for wanted in (1, 0))
    assert sorted(row[0] for row in logged) == [*range(14), *range(100, 114)]
    assert {row[3] for row in gpu} == {"0", "1"} and {row[3] for row in cpu} == {"none"}
    assert len({(row[2], row[3]) for row in gpu}) == 2  # a process keeps its device
    assert not {row[2] for row in gpu} & {row[2] for row in cpu}
    assert at_once([row[4:] for row in gpu]) == 2 >= at_once([row[4:] for row in cpu])
    for device in ("0", "1"):
        assert at_once([row[4:] for row in gpu if row[3] == device]) == 1
    # steps of different scans overlap
    assert min(row[4] for row in cpu) < max(row[4] for row in gpu)
    assert not list((tmp_path / "cache").glob(".dask-*")) and not list((tmp_path / "cache").glob("*.lock"))
    again, link = run(Cohort(log=str(log), n=14, bad=[]), make_worker(), tmp_path / "cache")
    assert not again.errored and link is None and rows(log) == logged
    assert not ours()


def test_cached_scans_are_not_submitted(cluster, tmp_path):
    for n, new in ((2, 4), (3, 2)):
        task = Cohort(log=str(tmp_path / "log"), n=n, bad=[])
        result, connection = run(task, DaskResourcesWorker(address=cluster.address), tmp_path / "cache")
        assert not result.errored and connection.submitted == new


def test_a_failing_scan_among_good_ones(cluster, tmp_path):
    log = tmp_path / "log"
    worker = DaskResourcesWorker(address=str(cluster.file))  # by its scheduler file
    result, _ = run(Cohort(log=str(log), n=5, bad=[2]), worker, tmp_path / "cache")
    assert result.errored
    assert error_of(result).count("ValueError: number 2 is bad") == 1 and "dask_toys.py" in error_of(result)
    assert sorted(row[0] for row in rows(log)) == [0, 1, 2, 3, 4, 100, 101, 103, 104]
    assert not list((tmp_path / "cache").glob("*.lock"))


def test_models_are_loaded_once_per_process(cluster, tmp_path):
    result, _ = run(Models(n=24), DaskResourcesWorker(address=cluster.address), tmp_path / "cache")
    assert not result.errored, error_of(result)
    pieces = [piece.split("|") for piece in result.outputs.where]
    assert all(one == other for one, other in pieces)  # both steps in one process
    assert len(pieces) == 24 and len({one for one, _ in pieces}) == 2
    assert all(one.endswith(" 1") for one, _ in pieces)


def test_the_correction_workflow(make_worker, dataset, tmp_path):
    (dataset / SCANS[1]).write_bytes(b"not an image")
    task = CorrectBids(
        bids_dir=dataset, out_dir=tmp_path / "out", method=["n4"], skull_strip="none", segmentation="none"
    )
    with Submitter(cache_root=tmp_path / "cache", worker=make_worker()) as submitter:
        result = submitter(task, raise_errors=False)
    assert result.errored and "not a complete gzip file" in error_of(result)
    outputs = sorted(path.name for path in (tmp_path / "out/n4").rglob("*_desc-preproc_T1w.nii.gz"))
    assert outputs == ["sub-01_desc-preproc_T1w.nii.gz", "sub-03_desc-preproc_T1w.nii.gz"]


def test_killed_workers(cluster, tmp_path):
    for name in ("once", "always"):
        (tmp_path / name).mkdir()
    task = Deaths(folder=str(tmp_path / "once"), other=str(tmp_path / "always"), log=str(tmp_path / "log"))
    result, _ = run(task, DaskResourcesWorker(address=cluster.address), tmp_path / "cache")
    assert result.errored
    assert error_of(result).count("WorkerDiedError") == 1  # the one that always kills its worker
    assert "WorkerDiedError: always: the Dask worker that ran it was killed, 3 times" in error_of(result)
    assert "--resources STEP.mem_gb" in error_of(result)
    assert len(list((tmp_path / "always").iterdir())) == 3 and len(rows(tmp_path / "log")) == 1
    outcome, link = run(Die(folder=str(tmp_path / "once"), times=1), DaskResourcesWorker(), tmp_path / "cache")
    assert outcome.outputs.tries == 1 and link is None  # done on its second worker, and in the cache
    assert not list((tmp_path / "cache").glob("*.lock"))


def test_what_takes_too_long_is_stopped_once(cluster, tmp_path):
    cluster.client().close()  # all workers are back
    begin = time.monotonic()
    with (
        Submitter(cache_root=tmp_path / "cache", worker=DaskResourcesWorker(address=cluster.address)) as submitter,
        pytest.raises(Exception, match=r"TimeoutError: main: took longer than 0.01 minutes"),
    ):
        submitter(Hang(x=1), raise_errors=True)
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"gpus": 2}, r"2 GPUs; there are: .*GPU=1.*CUDA_VISIBLE_DEVICES=0,1 dask worker tcp://\S+ --nthreads 1 "),
        ({"cpus": 64}, r"64 CPUs.*--resources 'CPU=64'.*cpus=1"),
        ({"mem_gb": 500}, r"500 GB.*2 worker\(s\) with CPU=1 MEM_GB=2.*'CPU=1 MEM_GB=500'.*mem_gb=250"),
    ],
)
def test_what_is_not_there_fails_at_once(cluster, tmp_path, numbers, words):
    cluster.client().close()  # all workers are back
    begin = time.monotonic()
    with Submitter(cache_root=tmp_path / "c", worker=DaskResourcesWorker(address=cluster.address)) as submitter:
        with pytest.raises(ResourceError, match=words):
            submitter.worker.check(requires(**numbers)(Die)(folder="x", times=0), "main")
        with pytest.raises(ResourceError, match=r"there are (1|2)\)"):
            submitter.worker.refuse_too_much(Resources(**numbers), "main")
        submitter.worker.refuse_too_much(Resources(gpus=1, cpus=1, mem_gb=2), "main")
        del Die.resources
        submitter.worker.overrides = {"main": numbers}
        with pytest.raises(ResourceError, match=words):
            submitter(Tell(x=1, log=str(tmp_path / "log")), raise_errors=True)
    assert time.monotonic() - begin < 10 and not (tmp_path / "log").exists()


def test_unfit_workers_say_why(cluster, tmp_path):
    given = {"parcel": b"", "checksum": "python-1", "run_folder": str(tmp_path), "paths": []}
    cpu = {"needs": {}, "wanted_versions": versions()}
    cases = [
        (given | cpu | {"run_folder": "/no/such/folder/.dask-1"}, "/no/such/folder: .*cannot see the cache folder"),
        (given | cpu | {"wanted_versions": {"python": "2.7"}}, r"other versions .*python 3\.\d+ \(here 2\.7\)"),
        (given | cpu | {"needs": {"gpus": 2}}, r"exactly the 2 GPU\(s\).*Got: 1 visible .*'0'"),
    ]
    with cluster.client() as client:
        [gpu] = [name for name, seen in client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"]).items() if seen == "0"]
        for arguments, words in cases:
            message = client.submit(run_parcel, **arguments, pure=False, workers=[gpu], resources={"GPU": 1}).result()
            assert message.startswith("ResourceError: "), message
            assert re.search(words, message), message


def test_a_cluster_of_other_threads_and_a_scheduler_that_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(link, "CONNECT_S", 3)  # also how long it is looked for when it has gone
    cluster_of_threads = Cluster(tmp_path, [("", "CPU=4", 4), ("", "CPU=1", 1)])
    try:
        with cluster_of_threads.client() as client:
            info = client.scheduler_info(n_workers=-1)["workers"]
            [threads] = [address for address, worker in info.items() if worker["nthreads"] == 4]
            given = {"run_folder": str(tmp_path), "needs": {}, "wanted_versions": versions(), "paths": []}
            message = client.submit(run_parcel, b"", checksum="x", **given, workers=[threads], pure=False).result()
            assert "one task at a time" in message and "--nthreads 1" in message
            client.retire_workers([threads])
        worker = DaskResourcesWorker(address=cluster_of_threads.address)
        with Submitter(cache_root=tmp_path / "cache", worker=worker) as submitter:
            worker.connect()
            # in a moment, in the middle of the only task
            killer = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {cluster_of_threads.processes[0].pid}"])
            with pytest.raises(Exception, match=r"scheduler at tcp://\S+ is gone. What was finished is kept"):
                submitter(Tell(x=1, log=str(tmp_path / "log"), wait=20.0), raise_errors=True)
            killer.wait()
            begin = time.monotonic()
            with pytest.raises(Exception, match="is gone"):
                submitter(Tell(x=2, log=str(tmp_path / "log")), raise_errors=True)
            assert time.monotonic() - begin < 2
    finally:
        cluster_of_threads.stop()


def test_other_versions_are_refused_before_anything_is_sent(cluster, tmp_path, monkeypatch, request):
    own = dict(versions())
    monkeypatch.setattr(task, "version", lambda package: "0.25" if package == "pydra" else own[package])
    versions.cache_clear()
    request.addfinalizer(versions.cache_clear)
    with (
        Submitter(cache_root=tmp_path / "cache", worker=DaskResourcesWorker(address=cluster.address)) as submitter,
        pytest.raises(ResourceError, match=r"other versions .*pydra 1\.\S+ \(here 0\.25\)"),
    ):
        submitter(Tell(x=1, log=str(tmp_path / "log")), raise_errors=True)
    assert not (tmp_path / "log").exists()


def test_no_scheduler_there(tmp_path, monkeypatch):
    monkeypatch.setattr(link, "CONNECT_S", 1)
    worker = DaskResourcesWorker(address="tcp://127.0.0.1:9")
    with Submitter(cache_root=tmp_path, worker=worker) as submitter:
        for _ in range(2):
            with pytest.raises(ResourceError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
                submitter(Tell(x=1, log="log"), raise_errors=True)
    with pytest.raises(InvalidParameterError, match=r"address=tcp://127\.0\.0\.1:9, gpus"):
        DaskResourcesWorker(address="tcp://127.0.0.1:9", gpus=2)


def driver_code(settings: dict, log: Path, cache: Path) -> str:
    """A script without an `if __name__ == "__main__"`, as many users write them."""
    return f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from dask_toys import Cohort
from pydra.engine import Submitter
from biascorr_pydra.workers.dask.worker import DaskResourcesWorker
with Submitter(cache_root={str(cache)!r}, worker=DaskResourcesWorker(**{settings!r})) as s:
    s(Cohort(log={str(log)!r}, n=10, bad=[]))
"""


def wait_for_lines(log: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while (not log.exists() or len(log.read_text().splitlines()) < count) and time.monotonic() < deadline:
        time.sleep(0.02)


def test_an_interrupted_run_ends_at_once_and_quietly(tmp_path):
    code = driver_code({"n_procs": 1, "gpus": 1, "mem_gb": 4}, tmp_path / "log", tmp_path / "cache")
    driver = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        # tests that run in the background of a shell inherit that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_lines(tmp_path / "log", 3)
    processes = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGINT)
    _, stderr = driver.communicate(timeout=20)
    assert (
        stderr.rstrip().endswith("KeyboardInterrupt")
        and "Event loop is closed" not in stderr
        and "destroyed" not in stderr
    )
    assert processes and not psutil.wait_procs(processes, timeout=5)[1]
    assert not list((tmp_path / "cache").glob(".dask-*"))


@pytest.mark.parametrize("where", ["local", "existing"])
def test_a_driver_that_is_killed_leaves_nothing_running_and_loses_nothing_done(where, tmp_path, request):
    log, cache = tmp_path / "log", tmp_path / "cache"
    local = where == "local"
    settings = {"n_procs": 1, "gpus": 1, "mem_gb": 4}
    if not local:
        settings = {"address": request.getfixturevalue("cluster").address}
    code = driver_code(settings, log, cache)
    driver = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait_for_lines(log, 5)
    processes = psutil.Process(driver.pid).children(recursive=True)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert len(processes) >= 3 if local else not processes
    assert not psutil.wait_procs(processes, timeout=15)[1]
    assert len(rows(log)) < 20
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stderr=subprocess.DEVNULL)
    numbers = [row[0] for row in rows(log)]
    assert set(numbers) == {*range(10), *range(100, 110)}
    # An existing cluster finishes what it has begun, and the second run takes it. A local one is ended with its driver:
    # each of its two workers may have been between its line in the log and its result.
    assert len(numbers) - 20 <= (2 if local else 0)
    # (the driver's own lock on writing a workflow's record, Pydra's, may stay; it is known to be of a dead process)
    assert not list(cache.glob("python-*.lock")) and not list(cache.glob(".dask-*"))
