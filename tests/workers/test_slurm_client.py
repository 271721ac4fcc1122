"""What Slurm's commands answer, and a Slurm that does not."""

import signal

import pytest
from slurm_stand_in import NODES

from biascorr_pydra.errors import SchedulerError
from biascorr_pydra.workers.slurm import client
from biascorr_pydra.workers.slurm.client import RefusedError, Slurm, Standing, SubmitLimitError, UnansweredError


def test_a_submitted_jobs_id_is_read(fake, monkeypatch):
    fake("sbatch", script='#!/bin/sh\necho "42;cluster"; exit ${SLURM_ARRAY_TASK_ID:-0}\n')
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")  # the driver may be a job itself
    assert Slurm().submit(["job.sh"]) == "42"


@pytest.mark.parametrize(
    "words, error",
    [("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", UnansweredError),
     ("sbatch: error: Unable to contact slurm controller (connect failure)", UnansweredError),
     ("sbatch: error: QOSMaxSubmitJobPerUserLimit", SubmitLimitError),
     ("sbatch: error: Batch job submission failed: Requested node configuration is not available", RefusedError),
     ("", RefusedError)],
)  # fmt: skip
def test_refusals_are_told_from_a_slurm_that_is_busy(fake, words, error):
    fake("sbatch", err=words, code=1)
    with pytest.raises(error) as caught:
        Slurm().submit(["job.sh"])
    assert type(caught.value) is error and (words or "no word") in str(caught.value)


def test_all_jobs_are_asked_for_at_once(fake):
    fake("squeue", "7|0|RUNNING|None\n7|1|PENDING|Resources\n8|N/A|TIMEOUT|TimeLimit\n")
    standings = Slurm().standings(["8", "7", "7"])
    assert {name: standing.state for name, standing in standings.items()} == {
        "7_0": "RUNNING",
        "7_1": "PENDING",
        "8": "TIMEOUT",
    }
    assert [name for name, standing in standings.items() if standing.over] == ["8"]
    assert fake.calls() == ["squeue -h -r -t all -o %F|%K|%T|%r -j 7,8"]


def test_a_job_that_slurm_has_forgotten_is_not_a_slurm_that_does_not_answer(fake):
    fake("squeue", err="slurm_load_jobs error: Invalid job id specified", code=1)
    assert Slurm().standings(["7"]) == {}
    fake("squeue", err="slurm_load_jobs error: Unable to contact slurm controller (connect failure)", code=1)
    with pytest.raises(UnansweredError):
        Slurm().standings(["7"])


def test_how_jobs_ended_is_read(fake):
    fake(
        "sacct",
        "7_0|COMPLETED|0:0\n7_1|CANCELLED by 1000|0:15\n8|OUT_OF_MEMORY|0:125\n9|FAILED|137:0\n7_[2-9]|PENDING|0:0\n",
    )
    accounts = Slurm().accounts(["7", "8", "9"])
    assert accounts["7_0"] == Standing("COMPLETED", code=0)
    assert accounts["7_1"] == Standing("CANCELLED", code=0, signal=15, by="1000")
    assert accounts["8"].state == "OUT_OF_MEMORY" and accounts["9"].signal == signal.SIGKILL


def test_without_accounting_it_is_said_once_and_scontrol_tells(fake, caplog):
    fake("sacct", err="Slurm accounting storage is disabled", code=1)
    fake("scontrol", "JobId=7 JobState=FAILED Reason=NonZeroExitCode Restarts=0 ExitCode=1:0 RunTime=00:00:01\n")
    slurm = Slurm()
    assert slurm.accounts(["7"]) == {} and slurm.accounts(["8"]) == {}
    assert slurm.shown("7") == {"7": Standing("FAILED", code=1)}
    assert len(fake.calls()) == 2 and caplog.text.count("accounting storage is disabled") == 1


def test_nodes_are_read(fake):
    fake("sinfo", NODES)
    main, long = Slurm().nodes()
    assert (main.default, main.cpus, main.gpus, main.mem_gb, main.minutes) == (True, 2, 2, 24.2, None)
    fake("sinfo", "big|big*|1.5K|64+|515000+|(null)|n/a\n")
    assert (Slurm().nodes()[0].count, Slurm().nodes()[0].cpus, Slurm().nodes()[0].minutes) == (1536, 64, None)
    assert (long.default, long.count, long.gpus, long.minutes) == (False, 10, 4, 2 * 1440 + 30)


def test_a_machine_without_slurm_says_so(fake):
    with pytest.raises(SchedulerError, match=r"command sinfo is not on this machine.*--worker lanes"):
        Slurm().nodes()


def test_a_slurm_that_answers_again_is_waited_for(monkeypatch):
    answers = [UnansweredError("busy"), UnansweredError("busy"), "42"]

    def ask():
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    slurm = Slurm()
    monkeypatch.setattr(client, "WAITS_S", (0.001, 0.002))
    assert slurm.patiently(ask, patience_s=60) == "42"
    answers[:] = [UnansweredError("busy")]
    with pytest.raises(UnansweredError):
        slurm.patiently(ask, patience_s=0)
