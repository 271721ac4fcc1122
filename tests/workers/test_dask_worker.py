"""The Dask worker without a cluster: what it refuses, what it asks Dask for, and life without Dask installed."""

import subprocess
import sys

import pytest

from biascorr_pydra.errors import ResourceError
from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.dask.task import different
from biascorr_pydra.workers.dask.view import View, wanted


def view(*workers, local=False):
    """A cluster of workers given as (threads, resources, memory limit in bytes, status, tasks running)."""
    identities = {
        f"tcp://w{number}": {
            "nthreads": threads,
            "resources": has,
            "memory_limit": limit,
            "status": status,
            "metrics": {"task_counts": {"executing": running}},
        }
        for number, (threads, has, limit, status, running) in enumerate(workers)
    }
    return View.from_identity({"address": "tcp://here:1", "workers": identities}, local)


CPU = (1, {"CPU": 2, "MEM_GB": 4}, 4e9, "running", 0)
GPU = (1, {"GPU": 1, "MEM_GB": 16}, 16e9, "running", 1)
BARE = (1, {}, 8e9, "running", 0)


@pytest.mark.parametrize(
    ("cluster", "asked", "count", "request_"),
    [
        (view(CPU, CPU, GPU), Resources(), 2, {"CPU": 1}),
        (view(CPU, CPU, GPU), Resources(cpus=2, mem_gb=4), 2, {"CPU": 2, "MEM_GB": 4}),
        (view(CPU, CPU, GPU), Resources(mem_gb=16), 0, {"CPU": 1, "MEM_GB": 16}),  # not on the GPU's worker
        (view(CPU, CPU, GPU), Resources(gpus=1, cpus=8, mem_gb=16), 1, {"GPU": 1, "MEM_GB": 16}),
        (view(GPU), Resources(), 0, {"CPU": 1}),
        (view(BARE, BARE), Resources(mem_gb=8), 2, {}),
        (view(BARE), Resources(mem_gb=9), 0, {}),
        (view(BARE), Resources(cpus=2), 0, {}),
        (view(BARE), Resources(gpus=1), 0, {"GPU": 1}),
        (view((4, {}, 8e9, "running", 0)), Resources(), 0, {}),  # tasks of one process would share a working folder
        (view((1, {}, 8e9, "paused", 0)), Resources(), 0, {}),  # and would never go on
        (view((1, {}, 8e9, "paused", 1)), Resources(), 1, {}),
        (view((1, {}, 0, "running", 0)), Resources(mem_gb=999), 1, {}),  # no limit
    ],
)
def test_what_fits_and_what_dask_is_asked_for(cluster, asked, count, request_):
    assert cluster.fitting(asked) == count
    assert wanted(asked, cluster) == request_


def test_a_refusal_says_what_is_asked_what_there_is_and_what_to_start():
    with pytest.raises(ResourceError) as caught:
        view(CPU, CPU, (4, {}, 8e9, "running", 0)).refuse(Resources(gpus=1, mem_gb=8), "correct")
    for words in (
        "task 'correct' asks for more than any worker of the Dask cluster at tcp://here:1 offers",
        "asked: 1 CPU, 1 GPU, 8 GB",
        "2 worker(s) with CPU=2 MEM_GB=4, 1 worker(s) with nothing declared 8.0 GB 4 threads",
        "CUDA_VISIBLE_DEVICES=0 dask worker tcp://here:1 --nthreads 1 --resources 'GPU=1 MEM_GB=8'",
        "--resources correct.gpus=0",
    ):
        assert words in str(caught.value)
    with pytest.raises(ResourceError, match="cpus_per_worker"):
        view(CPU, local=True).refuse(Resources(cpus=4), "correct")


def test_versions_that_differ_are_named():
    ours = {"python": "3.11", "pydra": "1.0"}
    assert different(ours, ours) == ""
    assert different({"python": "3.12", "pydra": "1.0"}, ours) == "python 3.12 (here 3.11)"
    assert different({"python": "3.11"}, ours) == "pydra none (here 1.0)"


def run_without_dask(code: str) -> subprocess.CompletedProcess:
    hide = "import sys; sys.modules.update(dask=None, distributed=None);"
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True)


def test_without_dask_other_workers_are_found_and_this_one_says_what_to_install():
    code = """
import pydra.engine
from pydra.workers.base import Worker
print(sorted(Worker.available_plugins()))
try:
    Worker.plugin("dask-resources")()
except Exception as error:
    print(type(error).__name__, error)
"""
    done = run_without_dask(code)
    assert "'dask_resources'" in done.stdout and "'lanes'" in done.stdout, done.stderr
    assert "InvalidParameterError" in done.stdout and "pip install 'biascorr-pydra[dask]'" in done.stdout
