"""Kill a cohort run at random moments, run it again each time, and see what was lost, repeated or left behind.

    python benchmarks/faults.py --scans 40 --faults 20 --worker lanes

Makes a cohort of small phantoms, corrects it once undisturbed as the reference, and then again into another folder
while `kill -9` hits the driver or one of the processes that work for it (a lane, or with --worker slurm-resources a
Slurm job's); after a driver's death the same command is run again.
Prints a table, one row per kind of fault, and exits with 1 if anything was lost, repeated, truncated, stale or left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline

WORKFLOW = Path(__file__).parents[1] / "workflows" / "correct_bids.py"
SHAPE, VOXEL_MM = (28, 32, 26), 7.0
LIMIT_S = 900


def make_cohort(root: Path, n_scans: int) -> None:
    """A BIDS data set of ``n_scans`` T1w-like ellipsoids with bias fields, seeded by their number."""
    root.mkdir(parents=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "faults", "BIDSVersion": "1.11.0"}))
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    radius = np.sqrt(sum((a / s) ** 2 for a, s in zip(axes, (0.85, 0.9, 0.85), strict=True)))
    true = np.select([radius < 0.5, radius < 0.7, radius < 0.95], [1000.0, 600.0, 300.0], 0)
    for number in range(n_scans):
        rng = np.random.default_rng(number)
        log_bias = 0.1 * LogBiasSpline.spanning(rng.normal(size=(5, 5, 5)), SHAPE).on_grid(SHAPE, float)
        data = np.abs(true * np.exp(log_bias) + rng.normal(0, 8, SHAPE)).astype(np.float32)
        folder = root / f"sub-{number:04d}" / "anat"
        folder.mkdir(parents=True)
        nifti.save(nib.Nifti1Image(data, np.diag([VOXEL_MM] * 3 + [1.0])), folder / f"sub-{number:04d}_T1w.nii.gz")


@dataclass
class Faults:
    """What happened, by kind of fault."""

    tries: Counter = field(default_factory=Counter)
    repeated: Counter = field(default_factory=Counter)
    restarts: int = 0

    @property
    def count(self) -> int:
        return sum(self.tries.values())


def command(raw: Path, out: Path, worker: list[str]) -> list[str]:
    code = "from biascorr_pydra.interfaces.pydra.run import main; main()"
    choices = ["--method", "n4", "--skull-strip", "none", "--segmentation", "none", *worker]
    return [sys.executable, "-c", code, "run", str(WORKFLOW), "--bids-dir", str(raw), "--out-dir", str(out), *choices]


def start(arguments: list[str], log: Path) -> subprocess.Popen:
    with open(log, "ab") as stream:
        return subprocess.Popen(arguments, stdout=stream, stderr=stream, start_new_session=True)


def processes_of(driver: int, out: Path) -> list[int]:
    """The processes that work for a driver: its lanes, or the Slurm jobs of its output folder."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            command_line = (folder / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, ValueError, IndexError):
            continue
        lane = parent == driver and "biascorr_pydra.workers.lanes.lane" in command_line
        if lane or ("biascorr_pydra.workers.slurm.job" in command_line and str(out) in command_line):
            pids.append(int(folder.name))
    return pids


def finished(out: Path) -> dict[Path, int]:
    """The scans that are published whole, by metrics file, with the time they were published."""
    return {path: path.stat().st_mtime_ns for path in out.glob("n4/sub-*/anat/*_metrics.json")}


def disturb(
    raw: Path, out: Path, worker: list[str], seen: Faults, n_faults: int, rng: random.Random, log: Path
) -> None:
    """Run, kill at random, and run again, until there were enough faults or nothing is left to disturb; then finish."""
    known: dict[Path, int] = {}
    process, began = start(command(raw, out, worker), log), time.monotonic()
    while seen.count < n_faults and process.poll() is None and time.monotonic() - began < LIMIT_S:
        time.sleep(rng.uniform(0.3, 5.0))
        kind = rng.choice(["driver", "worker"])
        victims = [process.pid] if kind == "driver" else processes_of(process.pid, out)
        if not victims or process.poll() is not None:
            continue
        known |= finished(out)
        try:
            os.kill(rng.choice(victims), signal.SIGKILL)
        except ProcessLookupError:
            continue
        seen.tries[kind] += 1
        if kind == "driver":
            process.wait()
            process = start(command(raw, out, worker), log)
            seen.restarts += 1
        seen.repeated[kind] += sum(finished(out).get(path) != moment for path, moment in known.items())
    process.wait(timeout=LIMIT_S)
    for _ in range(3):  # a scan whose process was killed too often fails: the next run does it
        if subprocess.run(command(raw, out, worker), capture_output=True, timeout=LIMIT_S).returncode == 0:
            break
    seen.repeated["at the end"] += sum(finished(out).get(path) != moment for path, moment in known.items())


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of every image of the cohort."""
    files = sorted(out.glob("n4/sub-*/anat/*.nii.gz"))
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def left_over(out: Path) -> list[str]:
    """Locks and temporary files that should not be there when no run is at work."""
    work = list((out / "work").glob("*.lock"))
    temporary = [p for p in (out / "n4").rglob(".*") if p.is_file() and p.name != ".bidsignore"]
    state = [p for p in (out / ".biascorr").glob("*") if p.name in ("lock", "run.json")]
    return [str(path) for path in (*work, *temporary, *state)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", default="lanes")
    parser.add_argument("--folder", type=Path, help="where to work, for instance on a shared file system")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="faults-", dir=arguments.folder) as folder:
        folder = Path(folder)
        raw, log = folder / "raw", folder / "log"
        make_cohort(raw, arguments.scans)
        worker = ["--worker", arguments.worker]
        reference = subprocess.run(command(raw, folder / "reference", worker), capture_output=True, text=True)
        if reference.returncode:
            print(reference.stdout, reference.stderr)
            return 1
        wanted, seen = digests(folder / "reference"), Faults()
        cohorts, images, lost, different, left, unfinished = 0, 0, [], [], [], 0
        while seen.count < arguments.faults:  # a cohort after another, if one is finished before there were enough
            out = folder / f"out{seen.restarts}-{seen.count}"
            disturb(raw, out, worker, seen, arguments.faults, rng, log)
            written = digests(out)
            images += len(written)
            lost += sorted(set(wanted) - set(written))
            different += sorted(name for name in wanted if name in written and wanted[name] != written[name])
            status = [
                sys.executable,
                "-c",
                "from biascorr_pydra.interfaces.cli.main import main; main()",
                "status",
                str(out),
            ]
            reply = subprocess.run(status, capture_output=True, text=True)
            unfinished += reply.returncode
            left += left_over(out)
            cohorts += 1
        names = {"driver": "the driver", "worker": "a lane" if arguments.worker == "lanes" else "a job's process"}
        print("| fault (kill -9) | tries | finished scans done again |\n|---|---|---|")
        for kind in ("driver", "worker"):
            print(f"| {names[kind]} | {seen.tries[kind]} | {seen.repeated[kind]} |")
        print(
            f"{cohorts} cohort(s) of {arguments.scans} scans, {seen.restarts} restarts: {images} of "
            f"{cohorts * len(wanted)} images, {len(lost)} lost, {len(different)} different from the undisturbed run, "
            f"{seen.repeated['at the end']} repeated, {len(left)} locks or temporary files left, "
            f"{unfinished} not finished by `biascorr status`."
        )
        bad = lost or different or left or unfinished or sum(seen.repeated.values())
        if bad:
            print(*lost[:5], *different[:5], *left[:5], reply.stdout, log.read_text()[-3000:], sep="\n")
        return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
