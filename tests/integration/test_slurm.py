"""`--worker slurm-resources` on a real Slurm of one node with two pretend GPUs, started for these tests.

    pytest -m slurm -n 0 tests/integration/test_slurm.py

Needs root and the packages named in start_slurm.sh. With BIASCORR_TEST_SLURM=FILE, a slurm.conf that start_slurm.sh
has made, that Slurm is used and left running.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import pytest
from pydra.engine import Submitter
from slurm_steps import Cohort, Steps

from biascorr_pydra.errors import ResourceError
from biascorr_pydra.resources import Resources
from biascorr_pydra.workers.slurm.worker import SlurmResourcesWorker

pytestmark = pytest.mark.slurm

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="session")
def slurm_conf(tmp_path_factory):
    if given := os.environ.get("BIASCORR_TEST_SLURM"):
        yield given
        return
    run_dir = tmp_path_factory.mktemp("slurm") / "run"
    subprocess.run([HERE / "start_slurm.sh", run_dir], check=True, stdout=subprocess.PIPE)
    yield str(run_dir / "slurm.conf")
    subprocess.run([HERE / "stop_slurm.sh", run_dir], check=True)


@pytest.fixture(autouse=True)
def _use_slurm(slurm_conf, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", slurm_conf)
    monkeypatch.syspath_prepend(str(HERE))


class Notes:
    """What the steps have noted."""

    def __init__(self, folder: Path):
        self.folder = folder

    def of(self, kind: str) -> list[dict]:
        return [json.loads(file.read_text()) for file in sorted(self.folder.glob(f"{kind}-*"))]

    def count(self, kind: str) -> dict[int, int]:
        counts: dict[int, int] = {}
        for note in self.of(kind):
            counts[note["x"]] = counts.get(note["x"], 0) + 1
        return counts

    def wait(self, kind: str, how_many: int = 1, seconds: float = 30) -> list[dict]:
        until = time.monotonic() + seconds
        while len(notes := self.of(kind)) < how_many:
            assert time.monotonic() < until, f"{len(notes)} of {how_many} steps have {kind}"
            time.sleep(0.1)
        return notes


@pytest.fixture
def notes(tmp_path):
    (tmp_path / "notes").mkdir()
    return Notes(tmp_path / "notes")


def worker(**options) -> SlurmResourcesWorker:
    return SlurmResourcesWorker(**{"poll_s": 1, "settle_s": 1, "mem_gb": 0.4} | options)


def submit(task, cache_root: Path, used: SlurmResourcesWorker):
    with Submitter(worker=used, cache_root=cache_root) as submitter:
        return submitter(task, raise_errors=False)


def steps(notes: Notes, does: list[str], **inputs) -> Steps:
    return Steps(xs=list(range(len(does))), folder=str(notes.folder), does=does, **inputs)


def errors(result) -> str:
    assert result.errored
    return "".join(result.errors["error message"])


def in_background(target, *arguments):
    """Something that happens to the jobs while the driver, which owns this thread's loop, is at work."""
    import threading

    failures = []

    def run():
        try:
            target(*arguments)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def join():
        thread.join()
        assert not failures, failures

    return join


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def locks(cache_root: Path) -> list[str]:
    return [file.name for file in cache_root.rglob("*.lock")]


def driver(tmp_path: Path, notes: Notes, count: int, seconds: float, *options: str) -> subprocess.Popen:
    command = [sys.executable, str(HERE / "slurm_steps.py"), str(tmp_path / "cache"), str(notes.folder)]
    command += [str(count), str(seconds), "poll_s=1", "settle_s=1", "mem_gb=0.4", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# --- the work


def test_forty_scans_are_one_submission_and_are_not_submitted_again(tmp_path, notes):
    used = worker(poll_s=10)
    task = Cohort(xs=list(range(0, 400, 10)), folder=str(notes.folder))
    began = time.monotonic()
    result = submit(task, tmp_path / "cache", used)
    print(f"40 scans of 2 steps: {time.monotonic() - began:.1f} s, {used.calls}")
    assert result.outputs.out == [x + 2 for x in range(0, 400, 10)]
    assert used.calls["sbatch"] == 1 and used.calls["squeue"] <= 6 and "sacct" not in used.calls
    assert {note["threads"] for note in notes.of("ended")} == {"1"}
    assert len({note["pid"] for note in notes.of("ended")}) <= 20  # one process for several scans
    again = worker()
    with Submitter(worker=again, cache_root=tmp_path / "cache", propagate_rerun=False) as submitter:
        assert submitter(task, rerun=True).outputs.out == result.outputs.out
    assert "sbatch" not in again.calls and set(notes.count("begun").values()) == {1}
    assert locks(tmp_path / "cache") == []


def test_gpu_tasks_run_two_at_a_time_each_with_its_own_device(tmp_path, notes):
    used = worker(chunk=1)
    assert not submit(steps(notes, ["ok"] * 6, gpus=1, seconds=2), tmp_path / "cache", used).errored
    ran = notes.of("ended")
    assert {note["devices"] for note in ran} == {"0", "1"}
    together = [
        [other for other in ran if other["begin"] <= note["begin"] < other["end"]] for note in ran
    ]  # at each one's start
    assert max(len(group) for group in together) == 2
    for group in together:
        assert len({note["devices"] for note in group}) == len(group)


def test_cpu_tasks_have_no_device(tmp_path, notes):
    assert not submit(steps(notes, ["ok"] * 3), tmp_path / "cache", worker()).errored
    assert {note["devices"] for note in notes.of("ended")} == {""}


def test_pydra_finds_it_by_name(tmp_path, notes):
    with Submitter(worker="slurm-resources", cache_root=tmp_path / "cache", poll_s=1, mem_gb=0.4) as submitter:
        assert submitter(steps(notes, ["ok"])).outputs.out == [1]


def pydra_run(out: Path, workflow: Path, *options: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-c",
        "from biascorr_pydra.interfaces.pydra.run import main; main()",
        "run",
        str(workflow),
    ]
    command += ["--bids-dir", "bids_examples/phantom", "--out-dir", str(out), "--worker", "slurm-resources"]
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)


def batches(out: Path) -> dict[str, list[int]]:
    """What was submitted: by the name of its first task, the sizes of each batch's tasks."""
    sizes = {}
    for file in sorted((out / "work/slurm-resources/batches").glob("*/batch.json")):
        tasks = json.loads(file.read_text())["tasks"]
        sizes.setdefault(tasks[0][0]["name"], []).append(len(tasks))
    return sizes


def test_a_cohort_is_corrected_scan_by_scan_through_pydra_run(tmp_path):
    whole_scans = tmp_path / "whole_scans.py"
    whole_scans.write_text(
        "from biascorr_pydra.interfaces.pydra import scan\n"
        "from biascorr_pydra.interfaces.pydra.cohort import CorrectBids\n"
        "from biascorr_pydra.interfaces.pydra.cohort_hooks import hooks\n"
        "from biascorr_pydra.resources import requires\n"
        "requires(mem_gb=1.5, minutes=10)(scan.CorrectScan)\n"
    )
    options = ["--skull-strip", "none", "--segmentation", "none"]
    began = time.monotonic()
    done = pydra_run(tmp_path / "out", whole_scans, *options)
    assert done.returncode == 0 and "8 done, 0 done before, 0 failed." in done.stdout, done.stdout + done.stderr
    print(f"8 scans: {time.monotonic() - began:.0f} s, submissions {batches(tmp_path / 'out')}")
    assert len(batches(tmp_path / "out")["scan"]) == 1
    scans = sorted(ROOT.glob("bids_examples/phantom/sub-*/ses-*/anat/*.nii.gz"))
    assert len(scans) == 8
    for scan in scans:
        corrected = next((tmp_path / "out").rglob(scan.name.replace("_T", "_desc-preproc_T")))
        assert nib.load(corrected).shape == nib.load(scan).shape
    again = pydra_run(tmp_path / "out", whole_scans, *options)
    assert again.returncode == 0 and "0 done, 8 done before" in again.stdout, again.stdout + again.stderr
    assert len(batches(tmp_path / "out")["scan"]) == 1  # only the report, which every run writes anew


def test_a_cohort_is_corrected_step_by_step_through_pydra_run(tmp_path):
    options = ["--participant-label", "03", "--skull-strip", "template", "--segmentation", "none"]
    done = pydra_run(tmp_path / "out", ROOT / "workflows/correct_bids.py", *options)
    assert done.returncode == 0 and "2 done, 0 done before, 0 failed." in done.stdout, done.stdout + done.stderr


# --- what goes wrong


def test_a_failing_scan_says_its_own_error_and_the_others_finish(tmp_path, notes):
    used = worker()
    result = submit(steps(notes, ["ok", "ok", "fail", "ok"]), tmp_path / "cache", used)
    assert "ValueError: 2 is refused" in errors(result) and "in Step" in errors(result)
    assert notes.count("ended") == {0: 1, 1: 1, 3: 1} and used.calls["sbatch"] == 1
    assert locks(tmp_path / "cache") == []


def test_a_killed_job_is_tried_again_without_what_it_had_done(tmp_path, notes):
    def kill_the_second():
        os.kill(next(note["pid"] for note in notes.wait("begun", 2) if note["x"] == 1), signal.SIGKILL)

    join = in_background(kill_the_second)
    used = worker(chunk=3)
    result = submit(steps(notes, ["ok"] * 3, seconds=1.5), tmp_path / "cache", used)
    join()
    assert result.outputs.out == [1, 2, 3]
    assert notes.count("begun") == {0: 1, 1: 2, 2: 1} and used.calls["sbatch"] == 2
    assert locks(tmp_path / "cache") == []


def test_what_always_kills_its_job_ends_after_a_bounded_number_of_tries(tmp_path, notes):
    result = submit(steps(notes, ["ok", "die", "ok"]), tmp_path / "cache", worker(chunk=3, max_requeues=1))
    assert re.search(r"SchedulerError: Slurm job \d+ \(step\) was killed 2 times.*SIGKILL", errors(result))
    assert notes.count("begun") == {0: 1, 1: 2, 2: 1}


def test_a_crash_of_native_code_is_named_and_not_repeated(tmp_path, notes):
    result = submit(steps(notes, ["crash", "ok"]), tmp_path / "cache", worker(chunk=2))
    assert re.search(r"Slurm job \d+ \(step\) crashed. Got: SIGABRT", errors(result))
    assert notes.count("begun") == {0: 1, 1: 1}


def test_a_requeued_job_goes_on_where_it_was(tmp_path, notes):
    def requeue():
        slurm("scontrol", "requeue", notes.wait("begun", 2)[-1]["job"])

    join = in_background(requeue)
    used = worker(chunk=3)
    result = submit(steps(notes, ["ok"] * 3, seconds=2), tmp_path / "cache", used)
    join()
    assert result.outputs.out == [1, 2, 3]
    assert notes.count("begun") == {0: 1, 1: 2, 2: 1} and used.calls["sbatch"] == 1


def test_a_cancelled_job_is_named_and_not_submitted_again(tmp_path, notes):
    def cancel():
        slurm("scancel", notes.wait("begun")[0]["job"])

    join = in_background(cancel)
    used = worker(chunk=2)
    result = submit(steps(notes, ["ok"] * 2, seconds=20), tmp_path / "cache", used)
    join()
    assert len(re.findall(r"Slurm job \d+ \(step\) was cancelled by user 0", errors(result))) == 2
    assert notes.count("begun") == {0: 1} and used.calls["sbatch"] == 1
    assert locks(tmp_path / "cache") == []
    # what was cancelled is done by the next run
    assert submit(steps(notes, ["ok"] * 2, seconds=0), tmp_path / "cache2", worker()).outputs.out == [1, 2]


def test_a_step_over_its_minutes_is_stopped_and_the_rest_goes_on(tmp_path, notes):
    used = worker(chunk=2)
    result = submit(steps(notes, ["ok", "fail"], seconds=30, minutes=0.05), tmp_path / "cache", used)
    assert "SchedulerError: 'step' took longer than its 0.05 minutes" in errors(result)
    assert "--resources step.minutes=0.1" in errors(result) and "ValueError: 1 is refused" in errors(result)
    assert notes.count("begun") == {0: 1, 1: 1} and locks(tmp_path / "cache") == []


def test_slurms_own_time_limit_is_named(tmp_path, notes):
    result = submit(steps(notes, ["ok"], seconds=200), tmp_path / "cache", worker(sbatch_args="--time=1"))
    assert re.search(
        r"Slurm job \d+ \(step\) took longer than the partition's time limit. Got: TIMEOUT", errors(result)
    )
    assert notes.count("begun") == {0: 1} and locks(tmp_path / "cache") == []


def test_too_much_memory_is_named_and_not_repeated(tmp_path, notes):
    result = submit(steps(notes, ["fill"], seconds=20, mem_gb=0.5), tmp_path / "cache", worker())
    assert re.search(r"needed more than its 0.5 GB. Got: OUT_OF_MEMORY. .*step.mem_gb=1\.", errors(result))
    assert notes.count("begun") == {0: 1}


def test_more_than_any_node_has_is_refused_before_anything_is_submitted(tmp_path, notes):
    used = worker()
    result = submit(steps(notes, ["ok"], gpus=3), tmp_path / "cache", used)
    assert re.search(r"ResourceError: task 'step' asks for more than any node .*3 GPUs \(there are 2\)", errors(result))
    with pytest.raises(ResourceError, match=r"asks for more .* can ever give"):
        used.check(type("Task", (), {"resources": Resources(cpus=99)})(), "step")
    assert "sbatch" not in used.calls


def test_what_sbatch_refuses_is_told_with_its_own_words(tmp_path, notes):
    result = submit(steps(notes, ["ok"]), tmp_path / "cache", worker(sbatch_args="--constraint=gold"))
    assert "does not take the job of task 'step', which asks for 1 CPU" in errors(result)
    assert "Invalid feature specification" in errors(result)


# --- drivers that die


def test_a_killed_drivers_jobs_are_taken_up_and_nothing_is_done_twice(tmp_path, notes):
    first = driver(tmp_path, notes, 6, 3, "chunk=2")
    notes.wait("ended", 1)
    first.kill()
    first.communicate()
    second = driver(tmp_path, notes, 6, 3, "chunk=2")
    out, err = second.communicate(timeout=120)
    assert json.loads(out)["out"] == [1, 2, 3, 4, 5, 6], err
    assert "sbatch" not in json.loads(out) and "goes on; it is not submitted again" in err
    assert notes.count("begun") == notes.count("ended") == dict.fromkeys(range(6), 1)
    assert locks(tmp_path / "cache") == []


def test_a_driver_killed_before_it_knew_its_job_finds_it_by_name(tmp_path, notes):
    first = driver(tmp_path, notes, 2, 4, "chunk=2")
    notes.wait("begun")
    first.kill()
    first.communicate()
    journal = next((tmp_path / "cache/slurm-resources/batches").glob("*/batch.json"))
    journal.write_text(json.dumps(json.loads(journal.read_text()) | {"job_id": None}))
    out, err = driver(tmp_path, notes, 2, 4, "chunk=2").communicate(timeout=120)
    assert "sbatch" not in json.loads(out) and notes.count("begun") == {0: 1, 1: 1}, err


def test_two_drivers_on_one_cache_do_the_work_once(tmp_path, notes):
    both = [driver(tmp_path, notes, 4, 2), driver(tmp_path, notes, 4, 2)]
    for one in both:
        out, err = one.communicate(timeout=120)
        assert json.loads(out)["out"] == [1, 2, 3, 4], err
    assert notes.count("ended") == dict.fromkeys(range(4), 1)


def test_an_interrupted_driver_cancels_its_own_jobs_and_no_others(tmp_path, notes):
    other = slurm("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 60").strip()
    try:
        first = driver(tmp_path, notes, 3, 6, "chunk=1")
        jobs = {note["job"] for note in notes.wait("begun", 3)}
        first.send_signal(signal.SIGINT)
        _, err = first.communicate(timeout=60)
        assert "Cancelled 1 Slurm job(s) of this run" in err and "was never retrieved" not in err
        time.sleep(2)
        states = dict(line.split("|") for line in slurm("squeue", "-h", "-r", "-t", "all", "-o", "%A|%T").splitlines())
        assert {states[job] for job in jobs} <= {"CANCELLED", "COMPLETING"} and states[other] == "RUNNING"
        out, err = driver(tmp_path, notes, 3, 6, "chunk=1").communicate(timeout=90)
        assert json.loads(out)["out"] == [1, 2, 3] and "goes on" not in err, err
        assert notes.count("ended") == dict.fromkeys(range(3), 1) and locks(tmp_path / "cache") == []
    finally:
        slurm("scancel", other)
