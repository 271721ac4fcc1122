"""That one module alone knows Pydra from the inside, and what its functions say of a job."""

import ast
import re
import tomllib
from pathlib import Path

import lane_tasks
import pytest
from pydra.engine import Submitter

from biascorr_pydra.workers import engine

REPOSITORY = Path(__file__).parents[2]  # the sources, also where the package is installed elsewhere
INSIDE = REPOSITORY / "biascorr_pydra" / "workers" / "engine.py"
SOURCES = sorted(
    path
    for folder in ("biascorr_pydra", "benchmarks", "tests", "workflows")
    for path in (REPOSITORY / folder).rglob("*.py")
    if path not in (INSIDE, Path(__file__))
)
PRIVATE = {
    "_cache_root", "_cached_result", "_check_for_hash_changes", "_checksum", "_compute_hashes", "_errored",
    "_executor_name", "_from_job", "_hash_changes", "_hashes", "_plugin_name", "_populate_filesystem",
    "_readonly_caches", "_run_async", "CLOUD_PICKLE_ATTRS",
}  # fmt: skip
CACHE_FILES = {"_error.pklz", "_job.pklz", "_result.pklz", "_return_values.pklz", "_task.pklz"}
# what may be imported elsewhere: `from pydra.engine import Submitter` is how Pydra's own pages begin
INNER = re.compile(r"pydra\.(engine\.|workers\.|compose\.base|utils\.)")


def inner_names(path: Path) -> set[str]:
    """What a source file names of Pydra's inside."""
    named = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE:
            named.add(node.attr)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named |= {node.value.split("/")[-1]} & CACHE_FILES
        if isinstance(node, ast.Name) and node.id in PRIVATE:
            named.add(node.id)
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        named |= {module for module in modules if INNER.match(module)}
    return named


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("task._checksum", {"_checksum"}),
        ("folder / '_result.pklz'", {"_result.pklz"}),
        ("class W:\n    _plugin_name = 'w'", {"_plugin_name"}),
        ("from pydra.engine.job import Job", {"pydra.engine.job"}),
        ("from pydra.engine import Submitter\nfrom pydra.compose import python\nself._run()", set()),
    ],
)
def test_what_is_inside_is_recognised(tmp_path, source, named):
    (tmp_path / "a.py").write_text(source)
    assert inner_names(tmp_path / "a.py") == named


def test_pydras_inside_is_named_in_one_module():
    allowed_in_tests = {"_error.pklz", "_job.pklz", "_result.pklz"}  # the layout on disk is what some tests look at
    elsewhere = {}
    for path in SOURCES:
        named = inner_names(path) - (allowed_in_tests if "tests" in path.relative_to(REPOSITORY).parts else set())
        if named:
            elsewhere[str(path.relative_to(REPOSITORY))] = sorted(named)
    assert not elsewhere
    assert len(SOURCES) > 200 and inner_names(INSIDE) >= {"_checksum", "_cached_result", "pydra.engine.job"}


def test_pydra_has_an_upper_bound_and_every_use_says_its_version():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    [bound] = [line for line in project["dependencies"] if line.startswith("pydra")]
    assert ">=1.0a12" in bound and "<1.0b0" in bound
    tree = ast.parse(INSIDE.read_text())
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        inner = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)} & PRIVATE
        if inner:
            assert "since 1.0a" in ast.get_docstring(function), function.name


@pytest.fixture
def job(tmp_path):
    return engine.Job(lane_tasks.Misbehave(how="well", mark=""), submitter=Submitter(cache_root=tmp_path), name="one")


def test_a_job_is_given_an_identity_and_forgets_how_it_ended(job, tmp_path):
    assert engine.input_hashes(job.task) is None
    checksum = engine.checksum_of(job.task)
    assert checksum == job.checksum and set(engine.input_hashes(job.task)) == {"how", "mark", "function", "Outputs"}
    engine.adopt_identity(job, "other", {"how": b""})
    assert job.checksum == "other" and engine.input_hashes(job.task) == {"how": b""}
    engine.mark_errored(job)
    assert job.result().errored
    engine.forget_result(job)
    assert job.result() is None
    result = engine.errored_result(job)
    engine.remember_result(job, result)
    assert job.result() is result and result.errored and result.task is job.task


def test_a_task_is_taken_apart_and_its_function_is_known():
    task = lane_tasks.Misbehave(how="well", mark="")
    assert engine.task_values(task) == {"how": "well", "mark": ""}
    function = engine.function_of(lane_tasks.Misbehave)
    assert function.__name__ == "Misbehave" and function.__module__ == "lane_tasks"
    assert type(task)(**engine.task_values(task)) == task


def test_files_of_the_outputs_are_listed(tmp_path):
    with Submitter(cache_root=tmp_path) as submitter:
        result = submitter(lane_tasks.Make(text="four"))
    assert [path.name for path in engine.output_files(result.outputs)] == ["made.txt"]
    assert set(engine.output_values(result)) == {"out"}
    stored = engine.stored_result(engine.checksum_of(lane_tasks.Make(text="four")), [tmp_path])
    assert stored.outputs.out == result.outputs.out and engine.stored_result("no-such", [tmp_path]) is None
