"""What is made of a job whose Dask worker has died: tried again, or not, and whose locks go."""

import pytest

from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.dask.task import post_mortem

LOCKS = {"dead": "17\nnode-1\n5\n", "same number": "17\nnode-2\n5\n", "same host": "18\nnode-1\n5\n", "empty": ""}


@pytest.fixture
def mark(tmp_path):
    for name, holder in LOCKS.items():
        (tmp_path / f"{name}.lock").write_text(holder)
    (tmp_path / ".dask-here").mkdir()
    return tmp_path / ".dask-here" / "python-1"


def test_what_nobody_has_begun_is_tried(mark, tmp_path):
    assert post_mortem(mark, Resources()) is None and len(list(tmp_path.glob("*.lock"))) == len(LOCKS)


@pytest.mark.parametrize(("deaths", "again"), [(1, True), (2, True), (3, False), (4, False)])
def test_a_job_takes_three_workers_down_and_no_more(mark, deaths, again):
    mark.write_text("17 node-1\n" * deaths)
    verdict = post_mortem(mark, Resources())
    assert (verdict is None) is again
    assert again or f"was killed, {deaths} times: on node-1 (process 17)" in verdict


def test_only_the_dead_workers_locks_go(mark, tmp_path):
    mark.write_text("17 node-1\n")
    post_mortem(mark, Resources())
    assert {path.stem for path in tmp_path.glob("*.lock")} == set(LOCKS) - {"dead"}


def test_what_took_too_long_is_not_tried_again(mark):
    mark.write_text("17 node-1\n17 node-1 late\n")
    assert post_mortem(mark, Resources(minutes=2)).startswith("TimeoutError: took longer than 2 minutes")
