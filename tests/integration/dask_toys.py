"""Tasks that tell where they ran, for the tests of the Dask worker; its workers import them from here."""

from pydra.compose import python, workflow

from biascorr_pydra.resources import Resources, requires

loads = 0


@requires(lambda task: Resources(gpus=int(task.gpu)))
@python.define(outputs=["device"])
def Tell(x: int, log: str, gpu: bool = False, wait: float = 0.2, bad: bool = False) -> str:  # noqa: N802
    """Append a line to the log: number, GPUs asked for, process, device, begin, end."""
    import os
    import time

    begin, device = time.time(), os.environ.get("CUDA_VISIBLE_DEVICES")
    time.sleep(wait)
    with open(log, "a") as stream:
        stream.write(f"{x} {int(gpu)} {os.getpid()} {device or 'none'} {begin} {time.time()}\n")
    if bad:
        raise ValueError(f"number {x} is bad")
    return device or "none"


@workflow.define(outputs=["devices"])
def Scan(x: int, log: str, bad: bool = False) -> str:  # noqa: N802
    """A GPU step, and after it a CPU step."""
    first = workflow.add(Tell(x=x, log=log, gpu=True, bad=bad), name="first")
    second = workflow.add(Join(x=x + 100, log=log, after=first.device), name="second")
    return second.devices


@python.define(outputs=["devices"])
def Join(x: int, log: str, after: str) -> str:  # noqa: N802
    """As Tell, without a GPU."""
    from dask_toys import Tell

    return f"{after} {Tell(x=x, log=log).function(x, log)}"


@workflow.define(outputs=["devices"])
def Cohort(log: str, n: int, bad: list[int]) -> list:  # noqa: N802
    """Scans, some of them bad."""
    flags = [x in bad for x in range(n)]
    scans = workflow.add(Scan(log=log).split(("x", "bad"), x=list(range(n)), bad=flags).combine("x"), name="scan")
    return scans.devices


@python.define(outputs=["where"])
def UseModel(x: int) -> str:  # noqa: N802
    """Load what is to be loaded once per process; say which process this is and how often it has loaded."""
    import os

    import dask_toys

    if not hasattr(dask_toys, "model"):
        dask_toys.model = "weights"
        dask_toys.loads += 1
    return f"{os.getpid()} {dask_toys.loads}"


@requires(cpus=1)
@workflow.define(outputs=["where"])
def OnePiece(x: int) -> str:  # noqa: N802
    """Two steps in one process."""
    first = workflow.add(UseModel(x=x), name="first")
    second = workflow.add(UseModel(x=x + 1000), name="second")
    joined = workflow.add(Both(one=first.where, other=second.where), name="joined")
    return joined.where


@python.define(outputs=["where"])
def Both(one: str, other: str) -> str:  # noqa: N802
    """Two lines as one."""
    return f"{one}|{other}"


@workflow.define(outputs=["where"])
def Models(n: int) -> list:  # noqa: N802
    """Many short one-piece workflows."""
    return workflow.add(OnePiece().split("x", x=list(range(n))).combine("x"), name="piece").where


@python.define(outputs=["tries"])
def Die(folder: str, times: int) -> int:  # noqa: N802
    """Kill the process that runs this, the first few times."""
    import os
    import signal
    from pathlib import Path

    tries = len(list(Path(folder).iterdir()))
    if tries < times:
        Path(folder, str(tries)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return tries


@requires(minutes=0.01)
@python.define(outputs=["x"])
def Hang(x: int) -> int:  # noqa: N802
    """Take longer than is allowed."""
    import time

    time.sleep(60)
    return x


@workflow.define(outputs=["a", "b", "c"])
def Deaths(folder: str, other: str, log: str) -> tuple[int, int, str]:  # noqa: N802
    """One job that kills its worker once, one that always does, a good one."""
    once = workflow.add(Die(folder=folder, times=1), name="once")
    always = workflow.add(Die(folder=other, times=99), name="always")
    good = workflow.add(Tell(x=1, log=log), name="good")
    return once.tries, always.tries, good.device
