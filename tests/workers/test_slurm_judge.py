"""What becomes of a parcel, by every way in which its job may end."""

from pathlib import Path

import pytest

from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.slurm.client import Standing
from biascorr_pydra.workers.slurm.judge import Again, Failed, judge
from biascorr_pydra.workers.slurm.spool import Entry, Progress


def judged(state, *, current=0, before=0, starts=1, missing=(0, 1), base=0, log=None, tmp_path=None, **ended):
    progress = Progress(current, before, {} if current is None else {str(current): starts})
    entries = {number: Entry("scan", f"c{number}", base) for number in missing}
    log = log if log is not None else Path("/nowhere/0.err")
    needs = Resources(mem_gb=2, minutes=10)
    return judge("7_1", Standing(state, **ended), progress, entries, needs=needs, most_starts=3, log=log)


@pytest.mark.parametrize(
    "state, ended, words",
    [("CANCELLED", {"by": "1000"}, "7_1 (scan) was cancelled by user 1000"),
     ("TIMEOUT", {}, "took longer than its 10 minutes. Got: TIMEOUT. Ask for more: --resources scan.minutes=20."),
     ("OUT_OF_MEMORY", {}, "needed more than its 2 GB. Got: OUT_OF_MEMORY. Ask for more: --resources scan.mem_gb=4."),
     ("DEADLINE", {}, "before its deadline. Got: DEADLINE. Change --deadline"),
     ("FAILED", {"code": 2}, "ended early. Got: exit code 2. It printed nothing."),
     ("FAILED", {"code": 0, "signal": 11}, "crashed. Got: SIGSEGV."),
     ("COMPLETED", {"code": 0}, "without a result that can be seen from here. Is the work folder on a file system")],
)  # fmt: skip
def test_endings_that_are_final_are_named_with_a_next_step(state, ended, words):
    verdict = judged(state, **ended)[0]
    assert isinstance(verdict, Failed) and verdict.error.startswith("SchedulerError: Slurm job 7_1 (scan) ")
    assert words in verdict.error and verdict.error.endswith("Log: /nowhere/0.err.")


@pytest.mark.parametrize("state", ["CANCELLED", "DEADLINE"])
def test_what_ends_the_whole_job_ends_all_of_it(state):
    assert all(isinstance(verdict, Failed) for verdict in judged(state, missing=(0, 1, 2)).values())
    assert all(isinstance(verdict, Failed) for verdict in judged(state, missing=(1, 2)).values())  # between two


@pytest.mark.parametrize("state", ["TIMEOUT", "OUT_OF_MEMORY", "FAILED", "COMPLETED"])
def test_the_rest_of_a_job_is_submitted_again(state):
    verdicts = judged(state, code=1, missing=(0, 1, 2))
    assert isinstance(verdicts[0], Failed) and verdicts[1] == verdicts[2] == Again(0)


@pytest.mark.parametrize("state", ["TIMEOUT", "OUT_OF_MEMORY"])
def test_what_ran_after_others_gets_a_job_of_its_own_once(state):
    assert judged(state, before=1)[0] == Again(1, alone=True)
    assert isinstance(judged(state, before=0, base=1)[0], Failed)


@pytest.mark.parametrize(
    "state, ended",
    [("PREEMPTED", {}), ("NODE_FAIL", {}), ("BOOT_FAIL", {}), ("", {}),
     ("FAILED", {"code": 0, "signal": 9}), ("FAILED", {"code": 0, "signal": 15})],
)  # fmt: skip
def test_what_was_lost_is_tried_again_so_often(state, ended):
    assert judged(state, **ended) == {0: Again(1), 1: Again(0)}
    assert judged(state, **ended, base=1, starts=1)[0] == Again(2)
    last = judged(state, **ended, base=1, starts=2)[0]
    assert isinstance(last, Failed) and "3 times" in last.error
    # nothing begun: the job counts for all of them
    assert judged(state, **ended, current=None) == {0: Again(1), 1: Again(1)}
    assert isinstance(judged(state, **ended, current=None, base=2)[0], Failed)


def test_a_job_that_could_not_start_says_what_it_printed(tmp_path):
    (tmp_path / "0.err").write_text("line\n" * 40 + "ModuleNotFoundError: No module named 'pydra'\n")
    verdicts = judged("FAILED", code=1, current=None, log=tmp_path / "0.err")
    assert all(
        "exit code 1. line" in verdict.error and "named 'pydra'" in verdict.error for verdict in verdicts.values()
    )


@pytest.mark.parametrize("printed", ["slurmstepd: error: Detected 1 oom-kill event(s)", "Exceeded job memory limit"])
def test_memory_that_ran_out_is_seen_in_what_slurm_printed(tmp_path, printed):
    (tmp_path / "0.err").write_text(printed)
    assert "needed more than its 2 GB" in judged("FAILED", code=0, signal=9, log=tmp_path / "0.err")[0].error
