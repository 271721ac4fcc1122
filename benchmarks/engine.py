"""Measure the engine: time per scan against the number of scans, re-runs, throughput against ANTs' N4, memory.

    python benchmarks/engine.py overhead --sizes 100 500 1112 2000 [--stock 100 400] [--plot overhead.png]
    python benchmarks/engine.py rerun --scans 1112
    python benchmarks/engine.py throughput --scans 12 --ants 2
    python benchmarks/engine.py memory --scans 500

Each compares within one run on one machine; the load of the machine while it ran is printed with the numbers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["NO_ET"] = "1"

import engine_tasks
import nibabel as nib
import numpy as np
from faults import command, make_cohort, start
from n4 import phantom
from pydra.engine import Submitter

from biascorr_pydra.images import nifti
from biascorr_pydra.workers.lanes.worker import LanesWorker


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


# --- overhead


def per_scan_ms(worker, n: int, *, whole: bool) -> float:
    """Milliseconds per scan of a cohort of n tiny scans, the worker's start included."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with Submitter(worker=worker, cache_root=folder) as submitter:
            result = submitter(engine_tasks.Cohort(n=n, whole=whole))
        taken = time.perf_counter() - began
        assert list(result.outputs.out) == [2 * x + 4 for x in range(n)]
    return 1000 * taken / n


def overhead(sizes: list[int], stock: list[int], plot: Path | None) -> None:
    print("| worker | scans | ms a scan |\n|---|---|---|")
    rows = [("lanes", n, per_scan_ms(LanesWorker, n, whole=True)) for n in sizes]
    rows += [("lanes, step by step", n, per_scan_ms(LanesWorker, n, whole=False)) for n in stock]
    rows += [("Pydra's cf", n, per_scan_ms("cf", n, whole=False)) for n in stock]
    for name, n, ms in rows:
        print(f"| {name} | {n} | {ms:.1f} |")
    print(load())
    if plot:
        draw(rows, plot)


def draw(rows, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row[0] for row in rows):
        axes.plot(*zip(*[row[1:] for row in rows if row[0] == name], strict=True), "o-", label=name)
    axes.axhline(20, color="gray", linestyle=":", label="20 ms")
    axes.set(xlabel="scans (three tasks each)", ylabel="engine time per scan, ms", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


# --- a finished cohort again


def rerun(n: int) -> None:
    """Seconds of a first run and of two more, over tiny scans; the pages are part of all."""
    with tempfile.TemporaryDirectory() as folder:
        raw, out, log = Path(folder, "raw"), Path(folder, "out"), Path(folder, "log")
        make_cohort(raw, n)
        for name in ("first run", "again", "once more"):
            began = time.perf_counter()
            process = start(command(raw, out, ["--worker", "lanes"]), log)
            reported = None
            while process.poll() is None:
                time.sleep(0.05)
                if reported is None and len(list(out.glob("n4/*/anat/*_metrics.json"))) == n:
                    reported = time.perf_counter() - began
            assert process.returncode == 0, log.read_text()[-2000:]
            print(f"{name}: {time.perf_counter() - began:.1f} s; all scans published after {reported:.1f} s ({load()})")
        print(log.read_text().splitlines()[-3])


# --- throughput


def correct_all(submitter, files: list[Path], folder: Path) -> None:
    result = submitter(engine_tasks.CorrectAll(files=files, folder=str(folder / "out")))
    assert not result.errored, "".join(result.errors["error message"])


def throughput(n: int, n_ants: int) -> None:
    """Scans per minute, reading and writing included: ours over two lanes, antspyx with all cores."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data, affine = phantom()
        rng = np.random.default_rng(1)
        files = []
        for number in range(max(n, n_ants)):
            img = nib.Nifti1Image((data * rng.uniform(0.9, 1.1)).astype(np.int16), affine)
            nifti.save(img, folder / f"scan{number}.nii.gz")
            files.append(folder / f"scan{number}.nii.gz")
        (folder / "out").mkdir()
        ants_s = []
        for file in files[:n_ants]:
            code = (
                "import sys, time, ants, nibabel\n"
                "began = time.perf_counter()\n"
                "img = ants.image_read(sys.argv[1])\n"
                "field = ants.n4_bias_field_correction(img, return_bias_field=True)\n"
                "ants.image_write(img / field, sys.argv[2])\n"
                "print(time.perf_counter() - began)\n"
            )
            arguments = [sys.executable, "-c", code, str(file), str(folder / "out" / "ants.nii.gz")]
            ants_s.append(float(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout))
        with Submitter(worker=LanesWorker, cache_root=folder / "work") as submitter:
            # the lanes start and load their libraries with two scans that are not counted
            warm = [*files[:2]] if n > 2 else files
            correct_all(submitter, warm, folder)
            began = time.perf_counter()
            correct_all(submitter, files[2:n], folder)
            ours_s = (time.perf_counter() - began) / (n - 2)
            peaks = submitter.worker.peaks_gb()
        ants = np.median(ants_s)
        print(f"antspyx: {ants:.1f} s a scan ({', '.join(f'{s:.1f}' for s in ants_s)}), all cores")
        print(f"n4, preset antspy, lanes: {ours_s:.2f} s a scan over {n - 2} scans of {data.shape}")
        print(f"ratio: {ants / ours_s:.0f}; peak memory of a lane {max(peaks):.2f} GB ({load()})")


# --- memory


def memory(n: int) -> None:
    """Peak memory of the lanes after 50 scans and after n."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make_cohort(folder / "raw", n)
        files = sorted((folder / "raw").glob("sub-*/anat/*.nii.gz"))
        (folder / "out").mkdir()
        with Submitter(worker=LanesWorker(n_procs=1), cache_root=folder / "work") as submitter:
            for count in dict.fromkeys([50, *range(100, n + 1, 100)]):
                correct_all(submitter, files[:count], folder)
                print(f"after {count:4d} scans: peak {max(submitter.worker.peaks_gb()):.3f} GB")
        print(load())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    one = commands.add_parser("overhead")
    one.add_argument("--sizes", type=int, nargs="+", default=[100, 500, 1112, 2000])
    one.add_argument("--stock", type=int, nargs="*", default=[100, 400])
    one.add_argument("--plot", type=Path)
    two = commands.add_parser("rerun")
    two.add_argument("--scans", type=int, default=1112)
    three = commands.add_parser("throughput")
    three.add_argument("--scans", type=int, default=12)
    three.add_argument("--ants", type=int, default=2)
    four = commands.add_parser("memory")
    four.add_argument("--scans", type=int, default=500)
    options = vars(parser.parse_args())
    what = options.pop("what")
    if what == "overhead":
        overhead(**options)
    elif what == "rerun":
        rerun(options["scans"])
    elif what == "throughput":
        throughput(options["scans"], options["ants"])
    else:
        memory(options["scans"])


if __name__ == "__main__":
    main()
