"""What a driver that died, or another that lives, has with Slurm; and the end of this one."""

import asyncio
import os
import time

import pytest
from slurm_stand_in import PlayedSlurm, finish, make_queue, run_all

from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.slurm.client import Standing
from biascorr_pydra.workers.slurm.spool import Batch, Entry, Spool, release_locks_of


def left_behind(cache_root, names, *, job_id="5", alive=False):
    """A driver's spool with one submitted batch; the driver is dead unless said otherwise."""
    cache_root.mkdir(exist_ok=True)
    spool = Spool(cache_root)
    chunk = [(Entry(name, f"sum-{name}"), b"") for name in names]
    batch = spool.create(Resources(), [chunk], script="@FOLDER@", most_starts=3)
    batch.job_id = job_id
    batch.save()
    if not alive:
        spool.close()
    return batch, spool


@pytest.mark.parametrize("job_id", ["5", None])
def test_a_dead_drivers_job_is_taken_up(tmp_path, quick, job_id):
    batch, _ = left_behind(tmp_path / "c", ["s0", "s1"], job_id=job_id)
    slurm = PlayedSlurm(lambda folder, n: finish(folder))
    slurm.jobs["5"], slurm.by_name = {"5": Standing("RUNNING")}, {batch.slurm_name: "5"}
    queue = make_queue(tmp_path / "c", slurm)

    async def main():
        runs = [queue.run(name, f"sum-{name}", Resources(), b"", is_done=bool) for name in ("s0", "s1", "s2")]
        task = asyncio.gather(*runs)
        await asyncio.sleep(0.3)
        finish(batch.folder)
        return await task

    assert asyncio.run(main()) == [None] * 3
    queue.close()
    assert slurm.calls["sbatch"] == 1  # s2 alone
    assert not list((tmp_path / "c/slurm-resources/open").iterdir())


def test_a_dead_drivers_job_that_is_over_leaves_no_lock_and_its_work_is_submitted(tmp_path, quick):
    batch, _ = left_behind(tmp_path / "c", ["s0"])
    mark = b"123\nanother-host\n77\n"
    (batch.folder / "process" / "0-0").write_bytes(mark)
    (tmp_path / "c/work-1.lock").write_bytes(mark)
    (tmp_path / "c/work-2.lock").write_bytes(b"123\nanother-host\n78\n")  # another process, later
    slurm = PlayedSlurm(lambda folder, n: finish(folder))
    assert run_all(make_queue(tmp_path / "c", slurm), ["s0"]) == {"s0": None}
    assert not (tmp_path / "c/work-1.lock").exists() and (tmp_path / "c/work-2.lock").exists()
    assert slurm.calls["sbatch"] == 1


def test_a_living_drivers_job_is_waited_for_and_never_cancelled(tmp_path, quick):
    batch, living = left_behind(tmp_path / "c", ["s0"], alive=True)
    slurm = PlayedSlurm(lambda folder, n: finish(folder))
    slurm.jobs["5"] = {"5": Standing("RUNNING")}
    queue = make_queue(tmp_path / "c", slurm)

    async def main():
        run = asyncio.ensure_future(queue.run("s0", "sum-s0", Resources(), b"", is_done=bool))
        await asyncio.sleep(0.3)
        assert not run.done()
        run.cancel()

    asyncio.run(main())
    queue.close()
    assert slurm.calls["sbatch"] == 0 and slurm.cancelled == []
    assert Batch.load(batch.folder).driver == living.driver
    living.close()


@pytest.mark.parametrize("is_done", [True, False])
def test_what_a_living_driver_has_put_away_is_done_or_submitted(tmp_path, quick, is_done):
    batch, living = left_behind(tmp_path / "c", ["s0"], alive=True)
    slurm = PlayedSlurm(lambda folder, n: finish(folder))
    slurm.jobs["5"] = {"5": Standing("RUNNING")}
    queue = make_queue(tmp_path / "c", slurm)

    async def main():
        run = asyncio.ensure_future(queue.run("s0", "sum-s0", Resources(), b"", is_done=lambda: is_done))
        await asyncio.sleep(0.2)
        living.finish(batch)
        return await asyncio.wait_for(run, 10)

    assert asyncio.run(main()) is None and slurm.calls["sbatch"] == (not is_done)
    queue.close()
    living.close()


def test_what_was_cancelled_at_the_end_is_not_taken_up_by_the_next_run(tmp_path, quick):
    first = PlayedSlurm(lambda folder, n: {0: Standing("RUNNING")})
    queue = make_queue(tmp_path / "c", first)

    async def main():
        run = asyncio.ensure_future(queue.run("s0", "sum-s0", Resources(), b"", is_done=bool))
        await asyncio.sleep(0.2)
        run.cancel()

    asyncio.run(main())
    queue.close()
    second = PlayedSlurm(lambda folder, n: finish(folder))
    second.calls["sbatch"] = 1  # so that ids go on
    seen = [Standing("RUNNING"), Standing("CANCELLED"), Standing("CANCELLED")]
    second.standings = lambda jobs: {"1": seen.pop(0)} if seen else {}
    assert run_all(make_queue(tmp_path / "c", second), ["s0"]) == {"s0": None}
    assert len(seen) < 2 and not list((tmp_path / "c/slurm-resources/open").iterdir())


def test_the_end_cancels_exactly_the_jobs_that_are_not_over(tmp_path, quick):
    slurm = PlayedSlurm(lambda folder, n: finish(folder, only=["s0"]) and {0: Standing("RUNNING")})
    queue = make_queue(tmp_path / "c", slurm, chunk=1)

    async def main():
        assert await queue.run("s0", "sum-s0", Resources(), b"", is_done=bool) is None
        waiting = asyncio.ensure_future(queue.run("s1", "sum-s1", Resources(), b"", is_done=bool))
        await asyncio.sleep(0.2)
        waiting.cancel()

    asyncio.run(main())
    queue.close()
    assert slurm.cancelled == ["2"]


# --- whose locks go


def test_a_living_drivers_dead_job_keeps_its_locks(tmp_path, quick):
    """Its own driver sees to them; it may be about to submit the job again."""
    batch, living = left_behind(tmp_path / "c", ["s0"], alive=True)
    mark = b"123\nanother-host\n77\n"
    (batch.folder / "process" / "0-0").write_bytes(mark)
    (tmp_path / "c/work-1.lock").write_bytes(mark)
    slurm = PlayedSlurm(lambda folder, n: finish(folder))
    slurm.jobs["5"] = {"5": Standing("FAILED")}
    assert run_all(make_queue(tmp_path / "c", slurm), ["s0"]) == {"s0": None}
    assert (tmp_path / "c/work-1.lock").exists() and (batch.folder / "process" / "0-0").exists()
    assert slurm.calls["sbatch"] == 1
    living.close()


def test_only_locks_with_a_dead_processs_mark_go(tmp_path):
    marks = {"dead": b"123\nanother-host\n77\n", "other": b"123\nanother-host\n78\n", "empty": b""}
    for name, mark in marks.items():
        (tmp_path / f"{name}.lock").write_bytes(mark)
    (tmp_path / "dead.txt").write_bytes(marks["dead"])
    release_locks_of({marks["dead"], b""}, tmp_path)  # an empty mark: killed before it was written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dead.txt", "empty.lock", "other.lock"]
    release_locks_of({b""}, tmp_path)
    assert (tmp_path / "empty.lock").exists()


@pytest.mark.parametrize(("silent_s", "lives"), [(590, True), (610, False)])
def test_a_driver_on_another_host_lives_by_its_heartbeat(tmp_path, silent_s, lives):
    batch, _ = left_behind(tmp_path, ["s0"])
    file = tmp_path / "slurm-resources" / "drivers" / f"{batch.driver}.lock"
    file.write_text("123\nanother-host\n77\n")
    moment = time.time() - silent_s
    os.utime(file, (moment, moment))
    spool = Spool(tmp_path)
    assert [alive for _, alive in spool.others()] == [lives] and file.exists() is lives
    spool.close()
