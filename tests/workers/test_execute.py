"""Results in the cache: which are used again, and what a worker that finds none in time says."""

import lane_tasks
import pytest
from pydra.engine import Submitter
from toy_worker.worker import ToyWorker

from biascorr_pydra.workers import engine, placing
from biascorr_pydra.workers.execute import attempt, execute, finished, open_parcel, pack, record_failure


@pytest.fixture
def job_of(tmp_path):
    """A new job of a task each time, with the cache of the ones before it."""
    return lambda task: engine.Job(task, submitter=Submitter(cache_root=tmp_path / "cache"), name="one")


def test_a_result_is_used_again_unless_it_is_to_be_made_anew(job_of):
    task = lane_tasks.Make(text="four")
    assert finished(job_of(task)) is None
    result = execute(job_of(task))
    assert finished(job_of(task)).outputs.out == result.outputs.out
    assert finished(job_of(task), rerun=True) is None
    assert finished(job_of(task)) is None  # what was not to be used is gone


@pytest.mark.parametrize("spoil", ["remove", "empty"])
def test_a_result_whose_file_is_gone_or_empty_is_not_used(job_of, spoil):
    task = lane_tasks.Make(text="four")
    [file] = engine.output_files(execute(job_of(task)).outputs)
    file.unlink()
    if spoil == "empty":  # as a power cut may leave it
        file.touch()
    assert finished(job_of(task)) is None
    assert execute(job_of(task)).outputs.out and file.read_text() == "four"


def test_a_failure_is_not_used_again_and_an_error_that_is_there_stays(job_of):
    task = lane_tasks.Misbehave(how="raise", mark="")
    with pytest.raises(ValueError, match="a bad value"):
        execute(job_of(task))
    job = job_of(task)
    record_failure(job, "LaneDiedError: it was killed\n")
    assert job.result().errored and "a bad value" in "".join(job.result().errors["error message"])
    assert finished(job_of(task)) is None
    other = job_of(lane_tasks.Misbehave(how="well", mark=""))
    record_failure(other, "LaneDiedError: it was killed\n")
    assert other.result().errors["error message"] == ["LaneDiedError: it was killed\n"]


def test_a_parcel_is_the_job_again(job_of):
    job = job_of(lane_tasks.Misbehave(how="exit", mark=""))
    again, rerun = open_parcel(pack(job, rerun=True))
    assert rerun and again.task == job.task and again.checksum == job.checksum and again.name == job.name
    assert "SystemExit: 3" in attempt(pack(job))


def test_a_result_that_is_never_seen_is_an_error(tmp_path, monkeypatch):
    class Blind(ToyWorker):
        async def place(self, job, asked, rerun):
            return None  # it has run, on a node with another file system

    monkeypatch.setattr(placing, "SEEN_WITHIN_S", 0.0)
    with Submitter(worker=Blind(), cache_root=tmp_path) as submitter:
        result = submitter(lane_tasks.Misbehave(how="well", mark=""), raise_errors=False)
    assert "ResultNotSeenError" in "".join(result.errors["error message"])
