"""Starting processes: what fails leaves nothing open, and every worker limits the threads of what it starts alike."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from biascorr_pydra.resources import THREAD_VARIABLES, Resources
from biascorr_pydra.workers.dask.own_cluster import OwnCluster
from biascorr_pydra.workers.lanes import process
from biascorr_pydra.workers.lanes.process import Lane
from biascorr_pydra.workers.slurm.client import Slurm
from biascorr_pydra.workers.slurm.submit import Submission


def start_lane():
    Lane((), 2)


def start_cluster():
    OwnCluster([{"name": "cpu-0", "env": {}, "resources": {}, "memory_limit": 0}], 2)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def refuse(*_, **__):
    raise OSError(24, "Too many open files")


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize("start", [start_lane, start_cluster])
@pytest.mark.parametrize("scarce", [(subprocess, "Popen"), (os, "pipe")], ids=["process", "pipe"])
def test_what_cannot_be_started_leaves_nothing_open(start, scarce, monkeypatch, tmp_path):
    monkeypatch.setattr(*scarce, refuse)
    before = open_descriptors()
    for _ in range(20):
        with pytest.raises(OSError, match="Too many open files"):
            start()
    assert open_descriptors() == before
    assert not list(tmp_path.iterdir())


def test_a_lane_that_cannot_be_told_anything_is_ended(monkeypatch):
    started, start_process = [], subprocess.Popen

    def note(*arguments, **options):
        started.append(start_process(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", note)
    monkeypatch.setattr(process, "send", refuse)
    before = open_descriptors()
    with pytest.raises(OSError, match="Too many open files"):
        start_lane()
    assert open_descriptors() == before and [ended.returncode for ended in started] == [-9]


@pytest.mark.parametrize("start", [start_lane, start_cluster])
def test_all_libraries_of_a_process_are_given_its_threads(start, monkeypatch):
    environments = []

    def note(*_, env, **__):
        environments.append(env)
        raise OSError("seen enough")

    monkeypatch.setattr(subprocess, "Popen", note)
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    with pytest.raises(OSError, match="seen enough"):
        start()
    assert "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS" in THREAD_VARIABLES
    limits = {name: environments[0].get(name) for name in THREAD_VARIABLES}
    assert limits == dict.fromkeys(THREAD_VARIABLES, "2") | {"MKL_NUM_THREADS": "7"}  # what the user says holds


def test_a_slurm_jobs_libraries_are_given_its_cpus():
    submission = Submission(Slurm(), sbatch_args=(), chunk=1, max_running=None, setup="")
    lines = submission.script(Resources(cpus=3)).splitlines()
    assert {f"export {name}=3" for name in THREAD_VARIABLES} <= set(lines)
