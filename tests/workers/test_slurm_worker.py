"""The Slurm worker and its jobs, through commands that run them here."""

import os
import sys
import time
from pathlib import Path

import cloudpickle
import pytest
from filelock import SoftFileLock
from pydra.compose import python, workflow
from pydra.engine import Submitter
from slurm_stand_in import NODES

from biascorr_pydra.errors import InvalidParameterError
from biascorr_pydra.resources import requires
from biascorr_pydra.workers.engine import ERROR_FILE
from biascorr_pydra.workers.slurm.spool import Batch, Spool
from biascorr_pydra.workers.slurm.worker import SlurmResourcesWorker

RUNNER = """#!{python}
import os, re, subprocess, sys
folder = os.environ["FAKE_SLURM"]
name = os.path.basename(sys.argv[0])
with open(f"{{folder}}/calls", "a") as stream:
    stream.write(name + "\\n")
if name == "sbatch":
    options = " ".join(sys.argv)
    tasks = int((re.search(r"--array=0-(\\d+)", options) or [0, 0])[1]) + 1
    where = re.search(r"--error=(\\S+)/", options)[1]
    for task in range(tasks):
        with open(f"{{where}}/{{task}}.err", "wb") as err:
            env = os.environ | {{"SLURM_ARRAY_TASK_ID": str(task)}}
            subprocess.Popen(["/bin/bash", sys.argv[-1]], stdout=err, stderr=err, env=env, start_new_session=True)
    print(5)
elif name == "squeue":
    print(*(f"5|{{k}}|RUNNING|None" for k in ["N/A", *range(9)]), sep="\\n")
elif name == "sinfo":
    print("main|main*|1|2|23081|(null)|infinite")
"""


@python.define(outputs=["out"])
def Halve(x: float, bad: str) -> float:  # noqa: N802
    if x == 0 and Path(bad).exists():
        raise ValueError(f"{bad} is in the way")
    return x / 2


@requires(cpus=1)
@workflow.define(outputs=["out"])
def Twice(x: float, bad: str) -> float:  # noqa: N802
    once = workflow.add(Halve(x=x, bad=bad), name="once")
    return workflow.add(Halve(x=once.out, bad=bad), name="again").out


@workflow.define(outputs=["out"])
def All(xs: list[float], bad: str) -> list[float]:  # noqa: N802
    return workflow.add(Twice(bad=bad).split("x", x=xs).combine("x"), name="twice").out


def test_scans_run_end_to_end_and_a_failed_one_is_tried_by_the_next_run(fake, tmp_path, monkeypatch):
    for name in ("sbatch", "squeue", "sinfo", "scontrol", "scancel"):
        fake(name, script=RUNNER.format(python=sys.executable))
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path))
    used = SlurmResourcesWorker(chunk=3)
    assert cloudpickle.loads(cloudpickle.dumps(used)).chunk == 3
    task = All(xs=[4, 0, 8], bad=str(tmp_path / "bad"))
    (tmp_path / "bad").touch()
    with Submitter(worker=used, cache_root=tmp_path / "cache", propagate_rerun=False) as submitter:
        failed = submitter(task, raise_errors=False)
        assert "bad is in the way" in "".join(failed.errors["error message"]) and used.calls["sbatch"] == 1
        (tmp_path / "bad").unlink()
        assert submitter(task, rerun=True).outputs.out == [1.0, 0.0, 2.0]
        assert used.calls["sbatch"] == 2
        assert submitter(All(xs=[8, 4], bad=task.bad), rerun=True).outputs.out == [2.0, 1.0]
        assert used.calls["sbatch"] == 2
    batches = [Batch.load(folder) for folder in (tmp_path / "cache/slurm-resources/batches").iterdir()]
    batches.sort(key=lambda batch: -len(batch.tasks[0]))  # their names tell seconds, and both may be of one
    assert [[len(task) for task in batch.tasks] for batch in batches] == [[3], [1]]
    assert "ValueError" in batches[0].log(0).read_text()
    assert not list((tmp_path / "cache").rglob("*.lock"))


def test_a_death_that_left_no_result_is_recorded_for_the_engine(fake, tmp_path, monkeypatch):
    fake("sinfo", NODES)
    fake("scontrol", "")
    fake("sacct", "5|TIMEOUT|0:0\n")
    fake("sbatch", "5\n")
    fake("squeue", "5|N/A|TIMEOUT|TimeLimit\n")
    used = SlurmResourcesWorker(settle_s="0.1", poll_s=0.1)
    with Submitter(worker=used, cache_root=tmp_path / "cache") as submitter:
        result = submitter(All(xs=[1], bad=""), raise_errors=False)
    assert "Slurm job 5 (twice) took longer" in "".join(result.errors["error message"])
    assert len(list((tmp_path / "cache").glob(f"*/{ERROR_FILE}"))) == 2  # the scan's own, and the cohort's


@pytest.mark.parametrize("options", [{"chunk": 0}, {"chunk": "many"}, {"max_requeues": -1}, {"poll_s": "soon"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(InvalidParameterError):
        SlurmResourcesWorker(**options)


def test_options_may_be_text():
    used = SlurmResourcesWorker(chunk="5", max_in_queue="20", poll_s="3", sbatch_args="-p long --account='my lab'")
    assert (used.chunk, used.max_in_queue, used.poll_s) == (5, 20, 3.0)
    assert used.sbatch_args == ("-p", "long", "--account=my lab")


def test_locks_of_living_processes_stay(tmp_path):
    with SoftFileLock(tmp_path / "mine.lock"):
        before = time.time()
        spool = Spool(tmp_path)
        spool.beat()
        assert (spool.folder / "drivers" / f"{spool.driver}.lock").stat().st_mtime >= before - 1
        assert (tmp_path / "mine.lock").read_text().startswith(f"{os.getpid()}\n")
        spool.close()
