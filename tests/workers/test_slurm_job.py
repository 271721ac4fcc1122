"""What a Slurm job runs, in this process: which parcels it begins, and how it says that one has failed."""

import pytest

from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.slurm import job
from biascorr_pydra.workers.slurm.spool import Entry, Progress, Spool


@pytest.fixture
def batch_of(tmp_path):
    """A batch of one task with parcels that were begun so often before; none of them can be read."""
    spool = Spool(tmp_path)

    def make(*starts: int):
        chunk = [(Entry(f"s{number}", f"sum-{number}", count), b"no pickle") for number, count in enumerate(starts)]
        return spool.create(Resources(), [chunk], script="@FOLDER@", most_starts=3)

    yield make
    spool.close()


@pytest.mark.parametrize(("before", "in_this_job", "begun"), [(0, 0, True), (2, 0, True), (3, 0, False), (1, 2, False)])
def test_a_parcel_is_begun_no_more_often_than_allowed(batch_of, before, in_this_job, begun):
    batch = batch_of(before)
    Progress(starts={"0": in_this_job}).write(batch.folder / "progress" / "0")
    assert job.main(batch.folder, 0) == job.SOME_FAILED
    error = batch.outcome(0, 0)
    assert error.startswith("Traceback") is begun and ("interrupted too often. Got: 3 times" in error) is not begun
    assert batch.progress(0).starts == {"0": in_this_job + begun}


def test_what_has_an_outcome_is_passed_over(batch_of):
    batch = batch_of(0, 0)
    batch.put_outcome(0, 0, None)
    assert job.main(batch.folder, 0) == job.SOME_FAILED
    assert batch.outcome(0, 0) is None and batch.outcome(0, 1).startswith("Traceback")
    assert batch.progress(0) == Progress(current=1, before=0, starts={"1": 1})
    batch.put_outcome(0, 1, None)
    assert job.main(batch.folder, 0) == 0


def test_a_requeued_job_leaves_a_lock_that_tells_its_process(batch_of):
    batch = batch_of(0)
    job.main(batch.folder, 0)
    assert not list((batch.folder / "process").iterdir())  # it ended, and holds nothing
