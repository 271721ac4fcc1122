"""Files are written whole or not at all, several of them all or none, and hashes are read again when a file changed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from biascorr_pydra.errors import OutputError, OutputExistsError
from biascorr_pydra.images import files
from biascorr_pydra.images.files import Hashes

NAMES = ("a.nii.gz", "b.nii.gz", "c.json")
NEW = {name: f"new {name}".encode() for name in NAMES}


@pytest.fixture
def folder(tmp_path):
    """Two of the three files exist, the second is missing."""
    for name in (NAMES[0], NAMES[2]):
        (tmp_path / name).write_bytes(f"old {name}".encode())
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def write(folder: Path) -> None:
    files.write_all({folder / name: content for name, content in NEW.items()})


# --- one file


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def fail(stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"kept.txt: cannot be written.*No space left"):
        files.write_atomic(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_outputs_that_must_not_be_written(tmp_path, phantom_file):
    with pytest.raises(OutputError, match="same file"):
        files.check_output(phantom_file, inputs=(phantom_file,), overwrite=True)
    with pytest.raises(OutputExistsError, match="the output exists"):
        files.check_output(phantom_file)
    with pytest.raises(OutputError, match="does not exist"):
        files.check_output(tmp_path / "no" / "out.nii.gz")
    with pytest.raises(OutputError, match=r"must end in \.nii\.gz or \.nii.*suffix"):
        files.check_output(tmp_path / "out.mgz")
    assert files.check_output(phantom_file, overwrite=True) == phantom_file


def test_text_is_utf_8_and_a_name_that_is_not_unicode_is_shown_escaped(tmp_path):
    files.write_text(tmp_path / "text.txt", "caf\u00e9\n\udcff\n")
    assert (tmp_path / "text.txt").read_bytes() == b"caf\xc3\xa9\n\\udcff\n"


def test_json_has_an_indent_of_two_a_newline_and_paths_as_text(tmp_path):
    files.write_json(tmp_path / "value.json", {"file": Path("a/b"), "n": [1]})
    assert (tmp_path / "value.json").read_text() == '{\n  "file": "a/b",\n  "n": [\n    1\n  ]\n}\n'


def test_what_is_written_reaches_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        events.append(("fsync", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def noted_replace(source, target):
        events.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    files.write_all({tmp_path / "a": b"four", tmp_path / "b": b"seven55"})
    assert events == [("fsync", 4), ("fsync", 7), ("replace", "a"), ("replace", "b")]


# --- all of them or none


@pytest.mark.parametrize("target", NAMES)
def test_a_folder_in_the_place_of_one_file_leaves_the_others_as_they_were(folder, target):
    (folder / target).unlink(missing_ok=True)
    (folder / target).mkdir()
    before = contents(folder)
    with pytest.raises(OutputError, match=f"{target}: cannot be written.*Is a directory"):
        write(folder)
    assert contents(folder) == before and (folder / target).is_dir()


@pytest.mark.parametrize("failing", range(len(NAMES)))
@pytest.mark.parametrize("error", [OSError(13, "Permission denied"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_rename_that_fails_undoes_those_before_it(folder, monkeypatch, failing, error):
    before, calls, replace = contents(folder), [], os.replace

    def refused(source, target):
        calls.append(target)
        if len(calls) == failing + 1:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    expected = (OutputError, f"{NAMES[failing]}: cannot be written.*Permission denied")
    with pytest.raises(*expected[:1] if isinstance(error, OSError) else (KeyboardInterrupt,)) as raised:
        write(folder)
    if isinstance(error, OSError):
        assert raised.match(expected[1])
    assert contents(folder) == before  # nothing else either: no temporary file, no old file kept aside


def test_old_files_come_back_where_there_are_no_hard_links(folder, monkeypatch):
    before, replace = contents(folder), os.replace

    def without_links(*_, **__):
        raise OSError(1, "Operation not permitted")

    def refused(source, target):
        if Path(target).name == NAMES[-1] and before[NAMES[-1]] == Path(target).read_bytes():
            raise OSError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "link", without_links)
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OutputError):
        write(folder)
    assert contents(folder) == before


def test_an_old_file_that_cannot_be_put_back_is_not_lost(folder, monkeypatch):
    replace, old = os.replace, (folder / NAMES[0]).read_bytes()

    def only_once(source, target):
        if Path(target).read_bytes() != old if Path(target).exists() else True:
            raise OSError(30, "Read-only file system")
        replace(source, target)

    monkeypatch.setattr(os, "replace", only_once)
    with pytest.raises(OutputError, match=rf"{NAMES[0]}: is new while.*Read-only.*ends in {NAMES[0]}"):
        write(folder)
    (aside,) = [path for path in folder.iterdir() if path.name.startswith(".")]
    assert aside.read_bytes() == old


KILLED = """
import os, signal, sys
from pathlib import Path
from biascorr_pydra.images import files

folder, after, replace, calls = Path(sys.argv[1]), int(sys.argv[2]), os.replace, []

def killed(source, target):
    if len(calls) == after:
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(target)
    replace(source, target)

os.replace = killed
files.write_all({folder / name: f"new {name}".encode() for name in sys.argv[3:]})
"""


@pytest.mark.parametrize("after", range(len(NAMES)))
def test_a_process_killed_between_two_renames_leaves_each_file_old_or_new(folder, after):
    before = contents(folder)
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(after), *NAMES])
    assert done.returncode == -signal.SIGKILL
    left = contents(folder)
    hidden = {name for name in left if name.startswith(".")}
    expected = before | {name: NEW[name] for name in NAMES[:after]}
    assert {name: content for name, content in left.items() if name not in hidden} == expected
    assert all(files.is_temporary(name) for name in hidden)  # which the next run clears away


def test_files_written_together_replace_old_ones_and_leave_nothing_else(folder):
    write(folder)
    assert contents(folder) == NEW


# --- hashes


@pytest.fixture
def settled(tmp_path, monkeypatch):
    """A file that has not changed for long, as the store sees it, and the store."""
    file = tmp_path / "image.nii"
    file.write_bytes(b"first")
    monkeypatch.setattr(Hashes, "SETTLED_NS", -1)
    return file, tmp_path / "hashes.json"


def keep(file: Path, store: Path) -> str:
    hashes = Hashes(store)
    digest = hashes.sha256(file)
    hashes.keep()
    return digest


def test_a_file_that_did_not_change_is_not_read_again(settled, monkeypatch):
    file, store = settled
    digest = keep(file, store)
    monkeypatch.setattr(files, "sha256", lambda file: pytest.fail("read again"))
    assert Hashes(store).sha256(file) == digest == "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"


def test_a_file_put_back_with_its_size_and_old_time_is_seen_as_changed(settled):
    file, store = settled
    keep(file, store)
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    time.sleep(0.05)
    with open(file, "r+b") as stream:  # the same inode
        stream.write(b"other")
    os.utime(file, ns=times)
    assert file.stat().st_mtime_ns == times[1]
    assert Hashes(store).sha256(file) == files.sha256(file)


def test_a_file_that_changed_a_moment_ago_is_not_kept(tmp_path):
    file, store = tmp_path / "image.nii", tmp_path / "hashes.json"
    file.write_bytes(b"first")
    hashes = Hashes(store)
    hashes.sha256(file)
    hashes.keep()
    assert not store.exists()  # a second change within the clock's step would not show


def test_a_file_whose_time_lies_long_ago_is_kept_only_when_its_status_does_too(tmp_path, monkeypatch):
    file, store = tmp_path / "image.nii", tmp_path / "hashes.json"
    file.write_bytes(b"first")
    os.utime(file, (0, 0))  # the time of modification can be set, that of status cannot
    keep(file, store)
    assert not store.exists()
    now = time.time_ns() + 3_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now)
    keep(file, store)
    assert json.loads(store.read_text())[str(file)][1] == files.sha256(file)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": [1]}'])
def test_a_damaged_store_is_as_good_as_none(settled, content):
    file, store = settled
    store.write_text(content)
    assert keep(file, store) == files.sha256(file)
