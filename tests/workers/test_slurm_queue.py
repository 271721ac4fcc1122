"""The queue on a Slurm that is played: batches, limits, losses."""

import asyncio
import time
from itertools import pairwise

from slurm_stand_in import PlayedSlurm, finish, make_queue, run_all

from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.slurm.client import RefusedError, Standing, SubmitLimitError, UnansweredError
from biascorr_pydra.workers.slurm.spool import Batch, Progress


def test_work_of_one_kind_is_one_submission(tmp_path, quick):
    slurm = PlayedSlurm(lambda folder, n: finish(folder))
    answers = run_all(make_queue(tmp_path / "c", slurm), [f"s{n}" for n in range(40)])
    assert set(answers.values()) == {None} and slurm.calls["sbatch"] == 1 and slurm.calls["sacct"] == 0
    assert len(list((tmp_path / "c/slurm-resources/batches").iterdir())) == 1
    assert not list((tmp_path / "c/slurm-resources/open").iterdir())


def test_no_more_jobs_than_allowed_are_in_the_queue(tmp_path, quick):
    slurm = PlayedSlurm(lambda folder, n: sizes.append(len(Batch.load(folder).tasks)) or finish(folder))
    sizes = []
    run_all(make_queue(tmp_path / "c", slurm, chunk=1, max_in_queue=3), [f"s{n}" for n in range(10)])
    assert max(sizes) == 3 and sum(sizes) == 10
    sizes.clear()
    run_all(make_queue(tmp_path / "one", slurm, chunk=1, max_in_queue=1), ["s0", "s1"])
    assert sizes == [1, 1]


def test_lost_work_is_submitted_again_and_what_was_done_is_not(tmp_path, quick):
    def play(folder, n):
        batch = Batch.load(folder)
        if n > 1:
            seen.append([entry.name for task in batch.tasks for entry in task])
            return finish(folder)
        finish(folder, only=["s0"])
        Progress(1, 1, {"0": 1, "1": 1}).write(folder / "progress" / "0")
        return {0: Standing("NODE_FAIL")}

    seen, slurm = [], PlayedSlurm(play)
    answers = run_all(make_queue(tmp_path / "c", slurm, chunk=3), ["s0", "s1", "s2"])
    assert set(answers.values()) == {None} and seen == [["s1", "s2"]] and slurm.calls["sbatch"] == 2


def test_a_node_that_always_fails_ends_in_an_error(tmp_path, quick):
    slurm = PlayedSlurm(lambda folder, n: {0: Standing("NODE_FAIL")})
    answers = run_all(make_queue(tmp_path / "c", slurm, max_requeues=1), ["s0"])
    assert "lost its node 2 times. Got: NODE_FAIL" in answers["s0"] and slurm.calls["sbatch"] == 2


def test_what_slurm_has_forgotten_and_left_no_result_is_tried_again(tmp_path, quick):
    slurm = PlayedSlurm(lambda folder, n: finish(folder) if n == 2 else {})
    assert run_all(make_queue(tmp_path / "c", slurm), ["s0"]) == {"s0": None}


def test_slurms_refusal_fails_its_work_only(tmp_path, quick):
    def play(folder, n):
        if Batch.load(folder).needs.gpus:
            raise RefusedError("Slurm did not take the job", value="Invalid qos")
        return finish(folder)

    queue = make_queue(tmp_path / "c", PlayedSlurm(play))

    async def main():
        gpu = queue.run("g", "sum-g", Resources(gpus=1), b"", is_done=bool)
        cpu = queue.run("c", "sum-c", Resources(), b"", is_done=bool)
        return await asyncio.gather(gpu, cpu, return_exceptions=True)

    refused, done = asyncio.run(main())
    queue.close()
    assert done is None and "task 'g', which asks for 1 CPU, 1 GPU. Got: Invalid qos" in str(refused)
    assert "--gres=gpu:1" in str(refused)


def test_a_limit_on_submissions_makes_batches_smaller(tmp_path, quick):
    def play(folder, n):
        if len(Batch.load(folder).tasks) > 4:
            raise SubmitLimitError("no more")
        return finish(folder)

    answers = run_all(make_queue(tmp_path / "c", PlayedSlurm(play), chunk=1), [f"s{n}" for n in range(20)])
    assert set(answers.values()) == {None}


def test_room_for_one_job_is_waited_for(tmp_path, quick, caplog):
    def play(folder, n):
        if n < 4:
            raise SubmitLimitError("no more")
        return finish(folder)

    slurm = PlayedSlurm(play)
    assert run_all(make_queue(tmp_path / "c", slurm), ["s0"]) == {"s0": None}
    assert caplog.text.count("with fewer at a time") == 1


def test_a_job_that_may_never_start_is_told_of_once(tmp_path, quick, caplog):
    slurm = PlayedSlurm(lambda folder, n: {0: Standing("PENDING", "JobHeldUser")})
    queue = make_queue(tmp_path / "c", slurm)

    async def main():
        run = asyncio.ensure_future(queue.run("s0", "sum-s0", Resources(), b"", is_done=bool))
        await asyncio.sleep(0.3)
        run.cancel()

    asyncio.run(main())
    queue.close()
    assert caplog.text.count("job 1 waits (JobHeldUser) and may never start") == 1 and slurm.calls["squeue"] > 2


def test_a_slurm_that_stays_away_fails_the_work_and_leaves_its_jobs(tmp_path, quick):
    slurm = PlayedSlurm(lambda folder, n: {0: Standing("RUNNING")})
    slurm.standings = lambda jobs: (_ for _ in ()).throw(UnansweredError("Slurm did not answer squeue"))
    answers = run_all(make_queue(tmp_path / "c", slurm), ["s0"])
    assert isinstance(answers["s0"], UnansweredError) and slurm.cancelled == []


def test_the_same_work_asked_for_twice_is_done_once(tmp_path, quick):
    slurm = PlayedSlurm(lambda folder, n: finish(folder))
    queue = make_queue(tmp_path / "c", slurm)
    assert run_all(queue, ["s0"]) == {"s0": None}
    queue = make_queue(tmp_path / "c", slurm)

    async def main():
        return await asyncio.gather(*(queue.run("s", "sum", Resources(), b"", is_done=bool) for _ in range(2)))

    assert asyncio.run(main()) == [None, None] and slurm.calls["sbatch"] == 2
    queue.close()


def test_between_two_tries_for_one_job_a_poll_goes_by(tmp_path, quick):
    moments = []

    def play(folder, n):
        moments.append(time.monotonic())
        if n < 3:
            raise SubmitLimitError("no more")
        return finish(folder)

    assert run_all(make_queue(tmp_path / "c", PlayedSlurm(play), poll_s=0.3), ["s0"]) == {"s0": None}
    assert all(after - before >= 0.3 for before, after in pairwise(moments)) and len(moments) == 3


def test_a_limit_that_stays_ends_in_its_own_error(tmp_path, quick):
    def play(folder, n):
        raise SubmitLimitError("no more")

    slurm = PlayedSlurm(play)
    answers = run_all(make_queue(tmp_path / "c", slurm, patience_s=0.2), ["s0"])
    assert isinstance(answers["s0"], SubmitLimitError) and slurm.calls["sbatch"] > 2


def test_a_result_that_is_seen_late_is_not_made_again(tmp_path, quick):
    """A shared file system may show an outcome after Slurm has called the job over."""
    folders = []

    def play(folder, n):
        folders.append(folder)
        return {0: Standing("COMPLETED", code=0)}

    slurm = PlayedSlurm(play)
    queue = make_queue(tmp_path / "c", slurm, settle_s=1.0)

    async def main():
        run = asyncio.ensure_future(queue.run("s0", "sum-s0", Resources(), b"", is_done=bool))
        await asyncio.sleep(0.3)
        finish(folders[0])
        return await asyncio.wait_for(run, 10)

    assert asyncio.run(main()) is None
    queue.close()
    assert slurm.calls["sbatch"] == 1 and slurm.calls["sacct"] == 0


def test_work_is_begun_as_often_as_is_allowed(tmp_path, quick):
    for requeues in (0, 3):
        slurm = PlayedSlurm(lambda folder, n: {0: Standing("NODE_FAIL")})
        run_all(make_queue(tmp_path / f"c{requeues}", slurm, max_requeues=requeues), ["s0"])
        assert slurm.calls["sbatch"] == 1 + requeues
