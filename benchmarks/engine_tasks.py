"""Tasks that do next to nothing, as a scan of a cohort: what is left is the engine's own time."""

from fileformats.generic import File
from pydra.compose import python, workflow

from biascorr_pydra.resources import requires


@python.define
def Add(x: int, y: int) -> int:
    return x + y


@workflow.define(outputs=["out"])
def StepScan(x: int) -> int:
    """Three tasks, placed one by one."""
    first = workflow.add(Add(x=x, y=1), name="first")
    second = workflow.add(Add(x=first.out, y=2), name="second")
    return workflow.add(Add(x=first.out, y=second.out), name="third").out


@requires(cpus=1)
@workflow.define(outputs=["out"])
def TinyScan(x: int) -> int:
    """The same three tasks, placed as one piece."""
    first = workflow.add(Add(x=x, y=1), name="first")
    second = workflow.add(Add(x=first.out, y=2), name="second")
    return workflow.add(Add(x=first.out, y=second.out), name="third").out


@workflow.define(outputs=["out"])
def Cohort(n: int, whole: bool) -> list[int]:
    """One nested workflow per scan."""
    scan = TinyScan() if whole else StepScan()
    return workflow.add(scan.split("x", x=list(range(n))).combine("x"), name="scan").out


@requires(cpus=1, mem_gb=1)
@python.define(outputs=["out_file"])
def CorrectOnly(in_file: File, folder: str) -> str:
    """Read, estimate, apply and write one scan; nothing else."""
    from pathlib import Path

    from biascorr_pydra import correct_file

    out_file = Path(folder) / Path(str(in_file)).name
    bias_file = out_file.with_name("bias_" + out_file.name)
    correct_file(str(in_file), out_file, method="n4", preset="antspy", bias_file=bias_file, overwrite=True)
    return str(out_file)


@workflow.define(outputs=["out"])
def CorrectAll(files: list[File], folder: str) -> list[str]:
    """All scans."""
    return workflow.add(
        CorrectOnly(folder=folder).split("in_file", in_file=files).combine("in_file"), name="correct"
    ).out_file
