"""Do the tests see a central rule break? Each mutation is made in a copy of the package, and its tests are run on it.

    python benchmarks/mutants.py [--only WORD] [--minutes 5]

A mutant whose tests pass has survived: that rule is not tested. The list is in `mutations.py`; a mutation whose text is
no longer in the package is reported too, and counts as a failure, so that the list follows the code. Ends with status 1
if one survived or was not found.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("biascorr_pydra", "tests")
LINKED = ("bids_examples", "docs", "benchmarks", "workflows", "README.md", "CONTRIBUTING.md", "CHANGES.md", "setup.cfg")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="mutations whose file or rule has this word")
    parser.add_argument("--minutes", type=float, default=5, help="for the tests of one mutant")
    chosen = parser.parse_args(words)
    mutations = [mutation for mutation in MUTATIONS if chosen.only in f"{mutation.file} {mutation.rule}"]
    for tests in sorted({mutation.tests for mutation in mutations}):
        if (outcome := outcome_of(Mutation("", "", "", "", tests), chosen.minutes)) != "survived":
            raise SystemExit(f"without a mutation these must pass, and {outcome}: {tests}")
    bad = []
    for mutation in mutations:
        began = time.monotonic()
        outcome = outcome_of(mutation, chosen.minutes)
        print(f"{outcome:10} {time.monotonic() - began:6.1f} s  {mutation.file}: {mutation.rule}", flush=True)
        if outcome != "killed":
            bad.append(mutation)
    print(f"{len(bad)} not killed" if bad else "all killed")
    return int(bool(bad))


def outcome_of(mutation: Mutation, minutes: float) -> str:
    """ "killed", "survived", "timed out", or "not found" where the text is not in the file exactly once.

    A mutation of no file changes nothing: it tells whether the tests pass at all.
    """
    with tempfile.TemporaryDirectory(prefix="biascorr-mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in LINKED:
            (copy / name).symlink_to(ROOT / name)
        shutil.copy(ROOT / "pyproject.toml", copy)
        if mutation.file:
            file = copy / "biascorr_pydra" / mutation.file
            text = file.read_text() if file.is_file() else ""
            if text.count(mutation.old) != 1:
                return "not found"
            file.write_text(text.replace(mutation.old, mutation.new))
        return verdict(copy, mutation.tests.split(), minutes, show=not mutation.file)


def verdict(copy: Path, tests: list[str], minutes: float, *, show: bool) -> str:
    """What the tests, those of them that there are, say of this copy; "timed out" says nothing of it.

    Where they fail, ``show`` prints why.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", "not slow"]
    command += [test for test in tests if (copy / test).exists()]
    # Programs that a test starts in a folder of its own are this copy's too, not those that are installed.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(copy), os.environ.get("PYTHONPATH")]))}
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return "timed out"
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with status {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if done.returncode and show:
        print(done.stdout[-5000:])
    return "killed" if done.returncode else "survived"


if __name__ == "__main__":
    sys.exit(main())
