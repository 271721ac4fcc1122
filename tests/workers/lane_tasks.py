"""Tasks that tell where and when they ran, for the tests of the workers; importable, as a package's tasks are."""

import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from fileformats.generic import File
from pydra.compose import python, workflow

from biascorr_pydra.resources import Resources, requires, together
from biascorr_pydra.workers import node_resources

LOADED = []


def seen(number: int, pause_s: float) -> dict:
    began = time.monotonic()
    time.sleep(pause_s)
    return {
        "number": number,
        "pid": os.getpid(),
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "began": began,
        "ended": time.monotonic(),
    }


@python.define
def OnCpu(number: int, pause_s: float = 0.0) -> dict:
    return seen(number, pause_s)


@requires(gpus=1)
@python.define
def OnGpu(number: int, pause_s: float = 0.0) -> dict:
    if not LOADED:
        LOADED.append("a network")
        with open(Path(os.environ["LOADS"]), "a") as log:
            log.write(f"{os.getpid()}\n")
    return seen(number, pause_s)


@requires(lambda task: Resources(mem_gb=1.5 if task.number else 0.1))
@python.define
def Large(number: int, pause_s: float = 0.0) -> dict:
    return seen(number, pause_s)


def note_batch(tasks: list) -> nullcontext:
    with open(Path(os.environ["LOADS"]), "a") as log:
        log.write(f"{sorted(task.number for task in tasks)}\n")
    if any(task.number == 13 for task in tasks):
        raise ValueError("not together")
    return nullcontext()


@together(note_batch)
@requires(gpus=1, mem_gb=1)
@python.define
def Batched(number: int, pause_s: float = 0.0) -> dict:
    return seen(number, pause_s)


@python.define
def Count(file: File, log: str) -> int:
    with open(log, "a") as stream:
        stream.write("x")
    return len(Path(str(file)).read_text())


@python.define
def Make(text: str) -> File:
    path = Path("made.txt").absolute()
    path.write_text(text)
    return path


@python.define
def Misbehave(how: str, mark: str) -> str:
    if how == "raise":
        raise ValueError(f"a bad value in {how}")
    if how == "until marked" and not (Path(mark).exists() and "marked" in Path(mark).read_text()):
        raise ValueError("not yet")
    if how == "exit":
        sys.exit(3)
    if how == "sleep":
        time.sleep(60)
    if how == "die" or (how == "die once" and not Path(mark).exists()):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return how


@workflow.define(outputs=["out"])
def Spread(kind: str, numbers: list, pause_s: float = 0.0) -> list:
    """One task per number, of one kind."""
    task = {"cpu": OnCpu, "gpu": OnGpu, "large": Large, "batch": Batched, "node": OnCpu}[kind](pause_s=pause_s)
    hooks = node_resources(gpus=1) if kind == "node" else None
    return workflow.add(task.split("number", number=numbers).combine("number"), name=kind, hooks=hooks).out


@workflow.define(outputs=["out"])
def Ways(hows: list, mark: str) -> list:
    """One task per way to misbehave."""
    return workflow.add(Misbehave(mark=mark).split("how", how=hows).combine("how"), name="misbehave").out


@requires(cpus=1)
@workflow.define(outputs=["first", "second", "count"])
def Piece(number: int, file: File, log: str, how: str = "well") -> tuple[dict, dict, int]:
    """A scan: placed as one piece."""
    first = workflow.add(OnCpu(number=number), name="first")
    second = workflow.add(OnGpu(number=number), name="second")
    workflow.add(Misbehave(how=how, mark=log), name="misbehave")
    count = workflow.add(Count(file=file, log=log), name="count")
    return first.out, second.out, count.out


@workflow.define(outputs=["first", "second", "count"])
def Pieces(numbers: list, file: File, log: str, hows: list) -> tuple[list, list, list]:
    """A cohort of them."""
    piece = workflow.add(
        Piece(file=file, log=log).split(("number", "how"), number=numbers, how=hows).combine("number"), name="piece"
    )
    return piece.first, piece.second, piece.count
