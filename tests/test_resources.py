"""The resource spec: ranges, overrides, what can never be given, and that it stays out of the task's hash."""

import os
import subprocess
import sys

import pytest
from pydra.compose import python

from biascorr_pydra import resources
from biascorr_pydra.errors import InvalidParameterError, ResourceError
from biascorr_pydra.resources import Resources, declared, parse_overrides, requires
from biascorr_pydra.workers.engine import checksum_of


def test_a_spec_says_itself_in_words():
    assert str(Resources(cpus=1, gpus=2, mem_gb=1.5, minutes=30)) == "1 CPU, 2 GPUs, 1.5 GB, 30 min"
    assert str(Resources(cpus=4, gpus=1)) == "4 CPUs, 1 GPU"


@pytest.mark.parametrize(
    "numbers",
    [{"cpus": 0}, {"cpus": 1.5}, {"cpus": True}, {"gpus": -1}, {"mem_gb": 0}, {"mem_gb": "8"}, {"minutes": -1},
     {"mem_gb": float("nan")}, {"minutes": float("inf")}],
)  # fmt: skip
def test_numbers_outside_their_range_are_refused(numbers):
    with pytest.raises(InvalidParameterError, match=next(iter(numbers))):
        Resources(**numbers)


def test_what_can_never_be_given_is_said_with_what_there_is():
    asked = Resources(cpus=8, gpus=1, mem_gb=4)
    assert asked.beyond(Resources(cpus=8, gpus=1, mem_gb=4)) == []
    assert asked.beyond(Resources(cpus=2, gpus=0, mem_gb=None)) == ["8 CPUs (there are 2)", "1 GPUs (there are 0)"]
    with pytest.raises(ResourceError, match=r"'correct' asks .* this machine .*1 GPUs \(there are 0\).*correct.gpus=0"):
        Resources(gpus=1).check(Resources(cpus=2), task="correct", where="this machine")


def test_overrides_are_read():
    assert parse_overrides(["correct.gpus=1,mem_gb=8", "brain.cpus=2", "correct.minutes=5"]) == {
        "correct": {"gpus": 1, "mem_gb": 8.0, "minutes": 5.0},
        "brain": {"cpus": 2},
    }


@pytest.mark.parametrize("text", ["correct", "correct.", "correct.gpus", "gpus=1", "a.gpus=x", "a.gpu=1", "a.cpus=0"])
def test_wrong_overrides_are_refused(text):
    with pytest.raises(InvalidParameterError):
        parse_overrides([text])


@python.define
def Plain(x: int) -> int:  # noqa: N802
    return x


@requires(lambda task: Resources(mem_gb=task.x) if task.x else None)
@python.define
def Growing(x: int) -> int:  # noqa: N802
    return x


def test_a_spec_may_be_a_function_of_the_task():
    assert declared(Growing(x=3)) == Resources(mem_gb=3)
    assert declared(Growing(x=0)) is None and declared(Plain(x=1)) is None


def test_a_spec_is_not_part_of_the_hash():
    before = checksum_of(Plain(x=1))
    try:
        assert declared(requires(gpus=1, mem_gb=9)(Plain)(x=1)) == Resources(gpus=1, mem_gb=9)
        assert checksum_of(Plain(x=1)) == before
    finally:
        del Plain.resources


def test_visible_gpus_are_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5,")
    assert resources.gpu_ids() == ("2", "GPU-5") and resources.available().gpus == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert resources.gpu_ids() == ()


def test_gpus_are_counted_by_nvidia_smi(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: a)'\necho 'GPU 1: H100 (UUID: b)'\n")
    tool.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert resources.gpu_ids() == ("0", "1")


def test_this_machine_has_something():
    here = resources.available()
    assert here.cpus >= 1 and (here.mem_gb is None or here.mem_gb > 0.1)


def test_the_spec_loads_no_engine_and_no_torch():
    code = "import sys, biascorr_pydra.resources; print([m for m in ('torch', 'pydra', 'nipype') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
