"""One line out of what Pydra records of a failure."""

from types import SimpleNamespace

import cloudpickle

from biascorr_pydra.interfaces.pydra.results import error_line, forget_empty_results
from biascorr_pydra.workers.engine import Result


def recorded(text: str):
    return SimpleNamespace(errors={"error message": text.splitlines(keepends=True)})


INNER = """Traceback (most recent call last):
  File "a.py", line 3, in read
EOFError: ended too early

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "b.py", line 5, in load
biascorr_pydra.errors.UnreadableImageError: a.nii.gz: not a complete gzip file
"""


def test_the_error_and_not_its_cause():
    assert error_line(recorded(INNER)) == "UnreadableImageError: a.nii.gz: not a complete gzip file"


def test_the_innermost_of_nested_reports():
    outer = f"RuntimeError: Workflow job main failed with errors:\n\nJob 'scan', errored:\n{INNER}\n\nSee output\n"
    assert error_line(recorded(outer)).startswith("UnreadableImageError: a.nii.gz")


def test_the_lines_of_a_message_are_joined():
    assert error_line(recorded("ValueError: these do not exist:\n  - a.nii\n  - b.nii\n\nmore")) == (
        "ValueError: these do not exist: - a.nii - b.nii"
    )


def test_no_result_at_all_and_an_exception():
    assert "killed" in error_line(None)
    assert error_line(OSError("no sbatch")) == "OSError: no sbatch"
    assert (
        error_line(RuntimeError(f'\n"""\n{INNER}\n"""')) == "UnreadableImageError: a.nii.gz: not a complete gzip file"
    )


def test_results_of_interrupted_tasks_are_forgotten_and_others_kept(tmp_path):
    kinds = {"done": Result(cache_dir=tmp_path, outputs=3), "failed": Result(cache_dir=tmp_path, errored=True)}
    for name, result in {**kinds, "empty": Result(cache_dir=tmp_path)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "_result.pklz").write_bytes(cloudpickle.dumps(result))
    (tmp_path / "empty.lock").touch()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "_result.pklz").write_bytes(b"\x80")
    forget_empty_results(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done", "failed"]
