"""One run at a time in a folder; what a killed run leaves; the state of a cohort at any moment."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from forked import BIASCORR, program
from small_cohort import SCANS, WITHOUT, WORKFLOW, run, states

from biascorr_pydra import lock
from biascorr_pydra.cohort import status
from biascorr_pydra.errors import OutputError, RunLockedError
from biascorr_pydra.images import files

CODE = "from biascorr_pydra.interfaces.pydra.run import main; main()"


def biascorr_status(out):
    """What `biascorr status` says, and its exit code."""
    done = program(BIASCORR, "status", out)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr, done.returncode


def test_a_folder_is_held_by_one_and_free_again_afterwards(tmp_path):
    with lock.exclusive(tmp_path, {"run_id": "a"}) as before:
        assert before is None and lock.alive(tmp_path)
        assert lock.current(tmp_path)["run_id"] == "a" and lock.current(tmp_path)["pid"] == os.getpid()
        code = "import sys; from pathlib import Path; from biascorr_pydra import lock\n"
        code += f"with lock.exclusive(Path({str(tmp_path)!r}), {{}}): pass"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "RunLockedError" in other.stderr and f"process {os.getpid()} on {socket.gethostname()}" in other.stderr
    assert not list((tmp_path / lock.FOLDER).iterdir()) and not lock.alive(tmp_path)
    with lock.exclusive(tmp_path, {"run_id": "b"}) as before:
        assert before is None


def test_a_run_that_was_killed_is_known_to_the_next(tmp_path):
    code = (
        "import os, signal; from pathlib import Path; from biascorr_pydra import lock\n"
        f"with lock.exclusive(Path({str(tmp_path)!r}), {{'run_id': 'dead'}}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert not lock.alive(tmp_path) and lock.current(tmp_path)["run_id"] == "dead"
    with lock.exclusive(tmp_path, {}) as before:
        assert before["run_id"] == "dead"
    assert lock.current(tmp_path) is None


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"), lock.exclusive(tmp_path / "file", {}):
        pass


def test_locks_of_the_dead_go_and_those_of_the_living_and_of_other_hosts_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    contents = {
        "dead": f"{dead.pid}\n{socket.gethostname()}\n1\n",
        "living": f"{os.getpid()}\n{socket.gethostname()}\n",
        "elsewhere": f"{dead.pid}\nanother-host\n",
        "empty": "",
    }
    for name, text in contents.items():
        (tmp_path / f"{name}.lock").write_text(text)
    os.utime(tmp_path / "empty.lock", (1, 1))
    assert lock.remove_stale_locks(tmp_path) == 2
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["elsewhere", "living"]
    assert lock.remove_stale_locks(tmp_path, all_of_them=True) == 2


def test_half_written_files_go_and_nothing_else(tmp_path):
    (tmp_path / "n4").mkdir()
    (tmp_path / "work").mkdir()
    for name in ("n4/.0123456789ab.sub-01_T1w.nii.gz", "n4/.bidsignore", "n4/sub-01.nii.gz", "work/.0123456789ab.x"):
        (tmp_path / name).write_text("")
    assert lock.remove_temporary_files(tmp_path, leave=tmp_path / "work") == 1
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        ".0123456789ab.x", ".bidsignore", "sub-01.nii.gz",
    ]  # fmt: skip


def test_hashes_are_kept_and_a_change_that_hides_its_time_is_seen(tmp_path, monkeypatch):
    file, store = tmp_path / "scan", tmp_path / "hashes.json"
    file.write_bytes(b"one")
    monkeypatch.setattr(files.Hashes, "SETTLED_NS", 0)
    first = files.Hashes(store)
    digest = first.sha256(file)
    first.keep()
    read = []
    monkeypatch.setattr(files, "sha256", lambda path: read.append(path) or "read again")
    assert files.Hashes(store).sha256(file) == digest and not read
    times = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert files.Hashes(store).sha256(file) == "read again"
    store.write_text("{damaged")
    assert files.Hashes(store).sha256(file) == "read again"


def test_a_file_that_changed_just_now_is_not_believed_next_time(tmp_path):
    file, store = tmp_path / "scan", tmp_path / "hashes.json"
    file.write_bytes(b"one")
    hashes = files.Hashes(store)
    hashes.sha256(file)
    hashes.keep()
    assert not store.exists()


def test_status_of_a_cohort_from_before_to_after(dataset):
    out = dataset.parent / "out"
    assert biascorr_status(out)[1] == 1 and "no such folder" in biascorr_status(out)[0]
    shutil.copy(dataset / SCANS[0], dataset / SCANS[0].replace("_T1w", "_part-phase_T1w"))
    (dataset / SCANS[2]).write_bytes(b"not an image")
    run(dataset, *WITHOUT)
    text, code = biascorr_status(out)
    assert code == 1 and "The last run has ended." in text
    for words in ("2 done", "1 failed", "1 skipped", f"failed  {SCANS[2]}  n4  UnreadableImageError"):
        assert words in " ".join(text.split()) or words in text
    next((out / "n4").rglob("sub-01*_desc-preproc_T1w.nii.gz")).unlink()
    assert f"missing  {SCANS[0]}  n4" in biascorr_status(out)[0]


def test_a_killed_run_goes_on_and_status_says_what_is_left(dataset):
    out = dataset.parent / "out"
    arguments = ["--bids-dir", str(dataset), "--out-dir", str(out), *WITHOUT, "--n-procs", "1", "--method", "n4"]
    arguments += ["--method", "ants-n4"]
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "run", str(WORKFLOW), *arguments], stderr=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("n4/*/anat/*_metrics.json")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)  # so that it stays in the middle
    text, _ = biascorr_status(out)
    assert "A run is going on" in text and "waiting" in text
    second = run(dataset, *WITHOUT)
    assert second.returncode == 2 and f"process {process.pid} on" in second.stderr
    process.kill()
    process.wait()
    text, code = biascorr_status(out)
    assert code == 1 and "The last run was killed" in text and "interrupted" in text
    published = {path: path.stat().st_mtime_ns for path in out.rglob("*_metrics.json")}
    again = run(dataset, *WITHOUT, "--method", "n4", "--method", "ants-n4", worker="lanes")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in published} == published
    assert set(states(dataset)) <= {"done", "cached", "rejected"} and biascorr_status(out)[1] == 0
    assert not list((out / "work").glob("*.lock")) and not (out / lock.FOLDER / "run.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--worker", "nobody"), "no such worker"),
        (("--worker", "lanes", "--resources", "corect.gpus=1"), "no step of that name"),
        (("--worker", "lanes", "--resources", "correct.gpus=9"), "9 GPUs (there are 0)"),
        (("--worker", "lanes", "--resources", "scan.mem_gb=99999"), "99999 GB of memory"),
        (("--worker", "debug", "--resources", "correct.cpus=1"), "gives every task the same"),
        (("--worker", "lanes", "--worker-option", "speed=9"), "has no such option"),
        (("--worker", "lanes", "--worker-option", "speed"), "NAME=VALUE"),
    ],
)
def test_what_no_worker_can_give_is_said_before_anything_runs(dataset, arguments, words):
    done = run(dataset, *WITHOUT, *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (dataset.parent / "out").exists()


def test_a_scan_that_left_the_data_set_leaves_the_table(dataset):
    (dataset / SCANS[1]).write_bytes(b"not an image")
    run(dataset, *WITHOUT)
    (dataset / SCANS[1]).unlink()
    assert "0 done, 2 done before, 0 failed" in run(dataset, *WITHOUT).stdout
    assert biascorr_status(dataset.parent / "out")[1] == 0 and len(states(dataset)) == 2
    report = dataset.parent / "out/report.html"
    assert SCANS[1].split("/")[-1].split(".")[0] not in report.read_text()
    made = report.stat().st_mtime_ns
    assert "0 done, 2 done before" in run(dataset, *WITHOUT).stdout and report.stat().st_mtime_ns == made
    report.unlink()
    run(dataset, *WITHOUT)
    assert report.exists()


def test_a_killed_run_of_another_host_is_gone_on_with(dataset):
    run(dataset, *WITHOUT, "--participant-label", "01", worker="lanes")
    work, facts = dataset.parent / "out/work", {"pid": 1, "host": "another", "jobs_outlive_runs": False}
    for folder in (work, work.parent):
        (folder / lock.FOLDER / "run.json").write_text(json.dumps(facts))
    (work / "python-0.lock").write_text("1\nanother\n")
    done = run(dataset, *WITHOUT, worker="lanes")
    assert done.returncode == 0 and "process 1 on another" in done.stderr and not list(work.glob("*.lock"))


def test_rows_without_keys_are_told_as_they_were_written(tmp_path):
    status.write(tmp_path, [status.Row("sub-01_T1w.nii.gz", "n4", "done")])
    rows, words = status.now(tmp_path)
    assert rows == [status.Row("sub-01_T1w.nii.gz", "n4", "done")] and words == "The last run has ended."


def test_locked_error_is_a_builtin_one_too():
    assert issubclass(RunLockedError, BlockingIOError)
