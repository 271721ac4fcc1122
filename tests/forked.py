"""`biascorr` and `pydra run` in a process of its own that pays for no import: it is forked from one that has them.

To import torch, pandas, matplotlib and PyBIDS takes seconds, and the tests start these programs a hundred times. What a
fresh interpreter does, loads and waits for as it starts has tests of its own, which use ``subprocess``.
"""

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

BIASCORR = "biascorr_pydra.interfaces.cli.main:main"
PYDRA = "biascorr_pydra.interfaces.pydra.run:main"
PRELOADED = (
    "bids, matplotlib.pyplot, torch",
    "biascorr_pydra.interfaces.cli.main, biascorr_pydra.interfaces.pydra.study, pydra.engine.submitter",
    "biascorr_pydra.methods.deepem.corrector, biascorr_pydra.methods.n4.corrector",
    "biascorr_pydra.report.cohort.findings, biascorr_pydra.report.scan",
)
HERE = str(Path(__file__).parent)
SERVER = f"import sys; sys.path.insert(1, {HERE!r}); from forked import serve; serve()"
_servers: dict[int, subprocess.Popen] = {}  # of each process of pytest its own


def program(main: str, *arguments, cwd=None, timeout: float = 300) -> subprocess.CompletedProcess:
    """Run ``main``, as "module:function", with these arguments; returns what ``subprocess.run`` would.

    Raises
    ------
    subprocess.TimeoutExpired
        It took longer than ``timeout`` seconds, and was killed.
    """
    server = _servers.get(os.getpid())
    if server is None or server.poll() is not None:
        server = _servers[os.getpid()] = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    with TemporaryDirectory(prefix="forked-") as folder:
        files = [str(Path(folder) / name) for name in ("stdout", "stderr")]
        request = {"main": main, "arguments": [str(argument) for argument in arguments], "files": files}
        request |= {"cwd": str(cwd or Path.cwd()), "environment": dict(os.environ), "timeout": timeout}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = json.loads(server.stdout.readline())
        output, errors = [Path(file).read_text("utf-8") for file in files]
    if status is None:
        raise subprocess.TimeoutExpired([main, *arguments], timeout, output, errors)
    return subprocess.CompletedProcess([main, *arguments], os.waitstatus_to_exitcode(status), output, errors)


# --- in the process that is forked


def serve() -> None:
    """Fork for each line of stdin; returns when there are no more, and in each child when its program has ended."""
    path = [folder for folder in sys.path[1:] if folder not in (HERE, *_python_path())]
    for names in PRELOADED:
        exec(f"import {names}", {})
    gc.freeze()  # what is shared is not copied to look whether it is garbage
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(request, path)
            return
        print(json.dumps(_wait(child, request["timeout"])), flush=True)


def _wait(child: int, timeout: float) -> int | None:
    """The child's wait status; None where it was killed after ``timeout`` seconds."""
    late = []
    signal.signal(signal.SIGALRM, lambda *_: (late.append(True), os.kill(child, signal.SIGKILL)))
    signal.setitimer(signal.ITIMER_REAL, timeout)
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return None if late else status


def _become(request: dict, path: list[str]) -> None:
    """Run the program as ``python -c`` in that folder and environment would."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for descriptor, file in enumerate([os.devnull, *request["files"]]):
        opened = os.open(file, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:] = ["", *_python_path(), *path]
    sys.argv = ["-c", *request["arguments"]]
    module, name = request["main"].split(":")
    getattr(__import__(module, fromlist=[name]), name)()


def _python_path() -> list[str]:
    return [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
