"""The Slurm worker without a Slurm: what its commands answer, what is asked for, and how every ending is judged."""

import asyncio
import os
import signal
import stat
import sys
import time
from collections import Counter
from pathlib import Path

import cloudpickle
import pytest
from filelock import SoftFileLock
from pydra.compose import python, workflow
from pydra.engine import Submitter

from biascorr_pydra.errors import InvalidParameterError, ResourceError, SchedulerError
from biascorr_pydra.resources import Resources, requires
from biascorr_pydra.workers.slurm import queue
from biascorr_pydra.workers.slurm.client import RefusedError, Slurm, Standing, SubmitLimitError, UnansweredError
from biascorr_pydra.workers.slurm.judge import Again, Failed, judge
from biascorr_pydra.workers.slurm.queue import Queue, Settings
from biascorr_pydra.workers.slurm.spool import Batch, Entry, Progress, Spool
from biascorr_pydra.workers.slurm.submit import Submission
from biascorr_pydra.workers.slurm.worker import SlurmResourcesWorker

NODES = "main|main*|1|2|23081|gpu:2|infinite\nlong|long|10|64|515000|gpu:a100:4(S:0-1),shard:8|2-00:30:00\n"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts commands on the PATH that answer with given text, and note what they were asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))  # and no others: there may be a real Slurm

    def command(name: str, out: str = "", err: str = "", code: int = 0, script: str | None = None):
        (folder / f"{name}.out").write_text(out)
        (folder / f"{name}.err").write_text(err)
        body = f'/bin/cat "{folder}/{name}.out"; /bin/cat "{folder}/{name}.err" >&2; exit {code}\n'
        file = folder / name
        file.write_text(script or f'#!/bin/sh\necho "{name} $*" >> "{folder}/calls"\n{body}')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    command.calls = lambda: (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return command


# --- what the commands answer


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
    found = Slurm().standings(["8", "7", "7"])
    assert {name: standing.state for name, standing in found.items()} == {
        "7_0": "RUNNING",
        "7_1": "PENDING",
        "8": "TIMEOUT",
    }
    assert [name for name, standing in found.items() if standing.over] == ["8"]
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
    found = Slurm().accounts(["7", "8", "9"])
    assert found["7_0"] == Standing("COMPLETED", code=0)
    assert found["7_1"] == Standing("CANCELLED", code=0, signal=15, by="1000")
    assert found["8"].state == "OUT_OF_MEMORY" and found["9"].signal == signal.SIGKILL


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
    monkeypatch.setattr(slurm._stopped, "wait", lambda seconds: None)
    assert slurm.patiently(ask, patience_s=60) == "42"
    answers[:] = [UnansweredError("busy")]
    with pytest.raises(UnansweredError):
        slurm.patiently(ask, patience_s=0.5)


# --- what is asked for


def submission(fake, *, nodes=NODES, args=(), chunk="auto", **options) -> Submission:
    fake("sinfo", nodes)
    fake("scontrol", "MaxArraySize            = 1001\n")
    made = Submission(Slurm(), sbatch_args=args, chunk=chunk, setup="", **{"max_running": None} | options)
    made.look(patience_s=0)
    return made


def batch_of(tmp_path, needs, *sizes) -> Batch:
    tasks = [[Entry("scan", f"{task}{number}") for number in range(size)] for task, size in enumerate(sizes)]
    return Batch(tmp_path, needs, tasks, driver="d")


def test_needs_become_options_and_the_users_come_last(fake, tmp_path):
    needs = Resources(cpus=2, gpus=1, mem_gb=2, minutes=4.5)
    made = submission(fake, args=("--account=lab",), max_running=3)
    command = made._command(batch_of(tmp_path, needs, 2, 2, 1))
    for option in ("--cpus-per-task=2", "--gres=gpu:1", "--mem=1908M", "--time=11", "--array=0-2%3", "--requeue"):
        assert option in command
    assert command[-2:] == ["--account=lab", f"{tmp_path}/job.sh"]
    single = made._command(batch_of(tmp_path, Resources(), 1))
    assert not [option for option in single if option.startswith(("--array", "--mem", "--time", "--gres"))]


def test_time_asked_for_stays_within_the_partitions(fake, tmp_path):
    made = submission(fake, args=("-p", "long"))
    assert "--time=2910" in made._command(batch_of(tmp_path, Resources(minutes=2909), 1))


def test_tasks_without_gpus_are_given_none(fake):
    made = submission(fake)
    assert "CUDA_VISIBLE_DEVICES=''" in made.script(Resources()) and "OMP_NUM_THREADS=3" in made.script(
        Resources(cpus=3)
    )
    assert "CUDA_VISIBLE_DEVICES" not in made.script(Resources(gpus=1))


@pytest.mark.parametrize(
    "waiting, minutes, partition, tasks",
    [(4, None, "main", 4),  # few: one each
     (40, None, "main", 8),  # four for each of two places
     (1112, None, "main", 112),  # no more than ten together
     (1112, 15, "long", 371),  # three times 15 minutes, and start-up, fit in an hour
     (1112, 2, "long", 93),  # about a hundred jobs are no burden
     (40, 90, "long", 40)],
)  # fmt: skip
def test_chunks_keep_jobs_few_and_short(fake, waiting, minutes, partition, tasks):
    made = submission(fake, args=("-p", partition))
    chunks = made.cut(list(range(waiting)), Resources(minutes=minutes), None, room=1000)
    assert len(chunks) == tasks and [item for chunk in chunks for item in chunk] == list(range(waiting))
    assert max(map(len, chunks)) - min(map(len, chunks)) <= 1


def test_a_batch_is_no_larger_than_the_room_and_the_array_limit(fake):
    made = submission(fake, chunk=2)
    assert list(map(len, made.cut(list(range(10)), Resources(), None, room=3))) == [2, 2, 2]
    assert len(made.cut(list(range(3000)), Resources(), 1, room=5000)) == 1000


def test_more_than_any_node_has_is_refused_with_what_there_is(fake):
    made = submission(fake)
    made.check(Resources(cpus=2, gpus=2, mem_gb=20), "scan")
    with pytest.raises(ResourceError, match=r"'scan' .* partition main .*4 CPUs \(there are 2\).*scan.cpus=2"):
        made.check(Resources(cpus=4), "scan")
    two = "main|main*|1|64|1000|(null)|infinite\nmain|main*|1|2|100000|gpu:1|infinite\n"
    with pytest.raises(ResourceError, match=r"more at once .*8 CPUs, 1 GPU .*there are nodes with 64 CPUs, 0 GPUs"):
        submission(fake, nodes=two).check(Resources(cpus=8, gpus=1), "scan")
    with pytest.raises(ResourceError, match=r"no such partition. Got: gpu. There are: long, main"):
        submission(fake, args=("--partition=gpu",))


# --- how endings are judged


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


# --- the queue, on a Slurm that is played


class PlayedSlurm:
    """Jobs do what ``play(batch folder, submission number)`` writes; it answers their standing by task."""

    def __init__(self, play):
        self.play, self.calls, self.jobs, self.cancelled, self.by_name = play, Counter(), {}, [], {}

    def patiently(self, ask, *arguments, patience_s):
        return ask(*arguments)

    def nodes(self):
        return Slurm.nodes(self)

    def _run(self, command, *arguments):
        return 0, "main|main*|1|8|23081|gpu:2|infinite\n", ""

    def max_array(self):
        return 1000

    def submit(self, arguments):
        self.calls["sbatch"] += 1
        folder = Path(arguments[-1]).parent
        standings = self.play(folder, self.calls["sbatch"])
        job, array = str(self.calls["sbatch"]), any(option.startswith("--array") for option in arguments)
        self.jobs[job] = {f"{job}_{task}" if array else job: s for task, s in standings.items()}
        return job

    def standings(self, jobs):
        self.calls["squeue"] += 1
        return {name: s for job in jobs for name, s in self.jobs.get(job, {}).items()}

    def accounts(self, jobs):
        self.calls["sacct"] += 1
        return self.standings(jobs)

    def shown(self, job_id):
        return {}

    def find(self, name):
        return self.by_name.get(name)

    def cancel(self, jobs):
        self.cancelled += jobs


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(queue, "COLLECT_S", 0.01)
    monkeypatch.setattr(queue, "LOOK_S", (0.01, 0.02))


def make_queue(cache_root, slurm, *, chunk="auto", max_in_queue=100, max_requeues=2) -> Queue:
    made = Submission(slurm, sbatch_args=(), chunk=chunk, max_running=None, setup="")
    made.look(0)
    cache_root.mkdir(exist_ok=True)
    settings = Settings(poll_s=0.02, settle_s=0.02, patience_s=1, max_requeues=max_requeues, max_in_queue=max_in_queue)
    return Queue(cache_root, slurm, made, settings)


def run_all(queue: Queue, names, needs=None, close=True) -> dict:
    async def main():
        runs = [queue.run(name, f"sum-{name}", needs or Resources(), b"", is_done=bool) for name in names]
        return await asyncio.wait_for(asyncio.gather(*runs, return_exceptions=True), 20)

    answers = dict(zip(names, asyncio.run(main()), strict=True))
    if close:
        queue.close()
    return answers


def finish(folder, error=None, only=None):
    """Write outcomes, as the jobs of a batch do; the standing of those that are complete."""
    batch = Batch.load(folder)
    for task, entries in enumerate(batch.tasks):
        for number, entry in enumerate(entries):
            if only is None or entry.name in only:
                batch.put_outcome(task, number, error)
    return {task: Standing("COMPLETED", code=0) for task in range(len(batch.tasks))}


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


# --- drivers that died


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


# --- the worker and its jobs, through commands that run them here

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
    assert len(list((tmp_path / "cache").glob("*/_error.pklz"))) == 2  # the scan's own, and the cohort's


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
