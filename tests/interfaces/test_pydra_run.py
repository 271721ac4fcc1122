"""`pydra run` with workflow files of a user's own: options from types, help from docstrings, exit codes, caching."""

import textwrap
from pathlib import Path

import pytest
from forked import BIASCORR, PYDRA, program

WORKFLOW = '''
"""A user's own workflow file."""
from pathlib import Path
from fileformats.generic import File
from pydra.compose import python, workflow


@python.define(outputs=["out_file"])
def Repeat(in_file: File, times: int, upper: bool) -> File:
    """Repeat a text

    Parameters
    ----------
    in_file : File
        text
    times : int
        how often
    upper : bool
        in capitals

    Returns
    -------
    out_file : File
        the result
    """
    text = Path(in_file).read_text() * times
    if "bad" in text:
        raise ValueError("a bad word")
    with open(Path(in_file).parent / "ran.log", "a") as log:
        log.write("x")
    out = Path("out.txt").absolute()
    out.write_text(text.upper() if upper else text)
    return out


@workflow.define(outputs=["out_file"])
def RepeatText(in_file: File, times: int = 2, upper: bool = False, words: list[str] | None = None) -> File:
    """Repeat a text some times.

    Parameters
    ----------
    in_file : File
        the text file
    times : int
        how many times
    upper : bool
        write in capitals
    words : list
        not used

    Returns
    -------
    out_file : File
        the repeated text
    """
    return workflow.add(Repeat(in_file=in_file, times=times, upper=upper)).out_file
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "flow.py").write_text(WORKFLOW)
    (tmp_path / "in.txt").write_text("ab")
    return tmp_path


def pydra(folder, *arguments, main=PYDRA):
    return program(main, "run", *arguments, cwd=folder)


@pytest.mark.parametrize("main", [PYDRA, BIASCORR])
@pytest.mark.parametrize("worker", ["debug", "cf"])
def test_runs_any_workflow_file(folder, worker, main):
    done = pydra(folder, "flow.py", "--in-file", "in.txt", "--times", "3", "--upper", "--worker", worker, main=main)
    assert done.returncode == 0, done.stderr
    out_file = done.stdout.split("out_file: ")[1].strip()
    assert Path(out_file).read_text() == "ABABAB"
    assert (folder / "work").is_dir()


def test_tasks_are_cached_by_content_and_rerun_computes_again(folder):
    arguments = ("flow.py", "--in-file", "in.txt", "--worker", "debug")
    runs = lambda: len((folder / "ran.log").read_text())  # noqa: E731
    pydra(folder, *arguments)
    pydra(folder, *arguments)
    assert runs() == 1
    (folder / "in.txt").write_text("cd")
    changed = pydra(folder, *arguments)
    assert runs() == 2
    assert Path(changed.stdout.split("out_file: ")[1].strip()).read_text() == "cdcd"
    pydra(folder, *arguments, "--rerun")
    assert runs() == 3


def test_help_comes_from_the_workflow(folder):
    done = pydra(folder, "flow.py", "--help")
    assert done.returncode == 0
    for words in (
        "Repeat a text some times.",
        "--in-file",
        "the text file",
        "--upper / --no-upper",
        "--worker",
        "required",
    ):
        assert words in done.stdout


def test_dry_run_shows_inputs_and_nodes_and_touches_nothing(folder):
    before = sorted(folder.iterdir())
    done = pydra(folder, "flow.py", "--in-file", "in.txt", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "RepeatText" in done.stdout and "runs Repeat" in done.stdout and "times = 2" in done.stdout
    assert sorted(p for p in folder.iterdir() if p.name != "__pycache__") == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Usage"),
        (("nowhere.py",), "no such workflow file"),
        (("flow.py",), "Missing option '--in-file'"),
        (("flow.py", "--in-file", "nowhere.txt"), "does not exist"),
        (("flow.py", "--in-file", "in.txt", "--tims", "3"), "No such option"),
        (("flow.py", "--in-file", "in.txt", "--times", "many"), "not a valid integer"),
        (("flow.py", "--in-file", "in.txt", "--worker", "nobody"), "nobody"),
        (("flow.py:Other", "--in-file", "in.txt"), "no workflow 'Other'"),
        (("in.txt",), "not a Python file"),
        (("--in-file", "in.txt"), "FILE comes before"),
    ],
)
def test_wrong_use_exits_with_2_and_no_traceback(folder, arguments, words):
    done = pydra(folder, *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_imported(folder):
    (folder / "broken.py").write_text("import no_such_module_here\n")
    done = pydra(folder, "broken.py")
    assert done.returncode == 2
    assert "no_such_module_here" in done.stderr and "Traceback" not in done.stderr


def test_several_workflows_must_be_told_apart(folder):
    second = textwrap.dedent(
        '''

        @workflow.define(outputs=["out_file"])
        def Other(in_file: File) -> File:
            """Another."""
            return workflow.add(Repeat(in_file=in_file, times=1, upper=False)).out_file
        '''
    )
    (folder / "flow.py").write_text(WORKFLOW + second)
    assert "flow.py:NAME; it has: " in pydra(folder, "flow.py", "--in-file", "in.txt").stderr
    assert pydra(folder, "flow.py:Other", "--in-file", "in.txt", "--worker", "debug").returncode == 0


@pytest.mark.parametrize("worker", ["debug", "cf"])
def test_a_task_that_fails_exits_with_1_and_its_message(folder, worker):
    (folder / "in.txt").write_text("bad")
    done = pydra(folder, "flow.py", "--in-file", "in.txt", "--worker", worker)
    assert done.returncode == 1
    assert "a bad word" in done.stderr
    assert "Traceback" not in done.stderr
