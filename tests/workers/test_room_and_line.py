"""What fits on a machine, and which job goes next: by hand-made requests, without processes."""

import asyncio

import pytest

from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.lanes import line
from biascorr_pydra.workers.lanes.line import Line, Request
from biascorr_pydra.workers.lanes.room import Room

MACHINE = Resources(cpus=4, gpus=2, mem_gb=8)


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def request_for(loop):
    """A request of a rank, for so much, of a kind."""

    def make(rank: int, kind: type | None = None, **needs) -> Request:
        return Request((rank,), Resources(**needs), b"", loop.create_future(), kind)

    return make


@pytest.mark.parametrize(
    ("needs", "fits"),
    [({"cpus": 4}, True), ({"cpus": 5}, False), ({"gpus": 2}, True), ({"gpus": 3}, False), ({"mem_gb": 8}, True),
     ({"mem_gb": 8.001}, False), ({}, True)],
)  # fmt: skip
def test_what_fits_is_no_more_than_there_is(needs, fits):
    assert Room(MACHINE, ("0", "1")).fits(Resources(**needs)) is fits


def test_what_is_taken_is_not_free_until_it_is_given_back():
    room, needs = Room(MACHINE, ("0", "1")), Resources(cpus=3, gpus=1, mem_gb=2)
    gpus = room.take(needs, count=3)
    assert gpus == ("0",)  # three jobs on one lane: one GPU, one job's CPUs, the memory of three
    assert not room.fits(Resources(cpus=2)) and room.fits(Resources(cpus=1, gpus=1, mem_gb=2))
    assert not room.fits(Resources(gpus=2)) and not room.fits(Resources(mem_gb=2.1))
    assert room.take(Resources(gpus=1)) == ("1",)
    room.give_back(Resources(gpus=1), ("1",))
    room.give_back(needs, gpus, count=3)
    assert room.fits(MACHINE) and room.take(Resources(gpus=2)) == ("0", "1")


def test_memory_comes_back_to_what_it_was():
    room = Room(Resources(cpus=9, mem_gb=8.0), ())
    for gb in (0.1, 1.4, 0.2):  # which sum up to 7.999999999999999, in this order
        room.take(Resources(mem_gb=gb))
    for gb in (1.4, 0.2, 0.1):
        room.give_back(Resources(mem_gb=gb), ())
    assert room.fits(Resources(mem_gb=8.0))


def test_memory_that_is_not_known_is_not_counted():
    room = Room(Resources(cpus=1), ())
    assert room.fits(Resources(mem_gb=1e6))
    room.take(Resources(mem_gb=1000))
    assert not room.fits(Resources(mem_gb=1))  # its one CPU is taken
    room.give_back(Resources(mem_gb=1000), ())
    assert room.fits(Resources(mem_gb=1e6))


@pytest.mark.parametrize(
    ("waiting", "most", "mem_gb", "share"),
    [(5, 4, 1, 3), (4, 4, 1, 2), (20, 4, 1, 4), (20, 99, 1, 8), (20, 99, 3, 2), (20, 4, None, 4), (20, 4, 9, 0)],
)
def test_a_lane_is_given_its_share_within_memory(waiting, most, mem_gb, share):
    room = Room(MACHINE, ("0", "1"))  # two free GPUs
    assert room.share(Resources(gpus=1, mem_gb=mem_gb), waiting, most) == share


def test_the_first_that_fits_goes_and_smaller_work_overtakes_for_a_while(request_for, monkeypatch):
    room, waiting = Room(MACHINE, ()), Line()
    large, small, smaller = request_for(1, cpus=3), request_for(2, cpus=2), request_for(3, cpus=2)
    for request in (smaller, large, small):
        waiting.push(request)
    room.take(Resources(cpus=2))
    assert waiting.pop(room) is small
    monkeypatch.setattr(line, "PATIENCE_S", -1.0)  # now the large one has waited for too long
    assert waiting.pop(room) is None
    room.give_back(Resources(cpus=2), ())
    assert [waiting.pop(room) for _ in range(3)] == [large, smaller, None]


def test_what_was_cancelled_is_not_run(request_for):
    waiting = Line()
    requests = [request_for(rank) for rank in (1, 2)]
    for request in requests:
        waiting.push(request)
    requests[0].future.cancel()
    assert waiting.pop(Room(MACHINE, ())) is requests[1]
    assert waiting.pop(Room(MACHINE, ())) is None


def test_only_jobs_of_one_kind_go_to_a_gpu_together(request_for):
    room, waiting = Room(MACHINE, ("0",)), Line()
    first, other, second, third, cancelled = (
        request_for(rank, kind, gpus=1) for rank, kind in enumerate((int, str, int, int, int))
    )
    for request in (first, other, second, third, cancelled):
        waiting.push(request)
    cancelled.future.cancel()
    popped = waiting.pop(room)
    assert popped is first and waiting.pop_alike(first, room, most=1) == []
    assert waiting.pop_alike(first, room, most=2) == [second]
    assert waiting.pop_alike(first, room, most=9) == [third]
    assert waiting.pop(room) is other and waiting.pop_alike(other, room, most=9) == []
    alone = request_for(9, None, gpus=1)
    assert waiting.pop_alike(alone, room, most=9) == [] == waiting.pop_alike(request_for(9, int), room, most=9)
