"""What the pages of scans cost: CPU seconds a page at real size, for a scan with two methods.

    python benchmarks/scan_pages.py make OUT [--scans 4]
    python benchmarks/scan_pages.py measure OUT [--repeats 5]

`make` writes a cohort as `benchmarks/report_cohort.py` does, but with images of 181 x 217 x 181 voxels of 1 mm: the
heads of `bids_examples/phantom_head.py`, with noise; of each, two methods' corrected images and fields as float32, a
brain mask and tissues, compressed as a run leaves them. No correction is made: one "method" takes 90% of the true field
out, the other 60%.

`measure` makes all pages from nothing in one process, `--repeats` times, and prints the CPU seconds a page: median,
smallest and largest. The first page of a process loads templates and fonts; it is printed apart, with the start of
Python: both are paid once. What the report of 1,112 scans costs without its scans' pages is measured by
`benchmarks/report_cohort.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import report_cohort

from biascorr_pydra.bids import Job, output_paths
from biascorr_pydra.images import nifti

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bids_examples"))
SHAPE = (181, 217, 181)
ORIGIN_MM = (-90.0, -126.0, -72.0)
METHODS = {"n4": 0.6, "deepem": 0.9}  # part of the log field that each takes out


def make(out: Path, n_scans: int) -> None:
    """Write the cohort's records, then real images in the place of its small ones."""
    import phantom_head

    report_cohort.make(out, n_scans, list(METHODS))
    anatomy = phantom_head.load_anatomy()
    for number in range(1, n_scans + 1):
        _write_images(out, f"{90000 + number:07d}", anatomy)


def _write_images(out: Path, label: str, anatomy) -> None:
    import phantom_head

    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = ORIGIN_MM
    key = phantom_head.Session(label, "1", 30, field_range=0.5)
    parts = phantom_head.fractions(anatomy, key, SHAPE, affine)
    tissues = np.stack([parts[tissue] for tissue in phantom_head.TISSUES])
    brain = tissues.sum(0) > 0.5
    labels = np.where(brain, tissues.argmax(0) + 1, 0).astype(np.uint8)
    log_bias = phantom_head.true_field(key, "T1w", SHAPE, brain).on_grid(SHAPE, np.float64)
    acquired = np.round(phantom_head.render(parts, key, "T1w", log_bias) * 10)
    job = Job(Path("x"), f"sub-{label}/anat/sub-{label}_T1w.nii.gz", (("sub", label),), "T1w")
    for method, part in METHODS.items():
        paths = output_paths(job, out / method)
        bias = np.exp(part * log_bias)
        bias /= bias[brain].mean()
        for kind, data, dtype in (
            ("corrected", acquired / bias, np.float32),
            ("bias", bias, np.float32),
            ("mask", brain, np.uint8),
            ("dseg", labels, np.uint8),
        ):
            paths[kind].parent.mkdir(parents=True, exist_ok=True)
            nifti.save(nib.Nifti1Image(data.astype(dtype), affine, dtype=dtype), paths[kind])


def measure(out: Path, repeats: int) -> None:
    """Print the CPU seconds of a page, from processes of one thread."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(threads, "1")
    seconds, starts, sizes = [], [], []
    for _ in range(repeats):
        shutil.rmtree(out / "reports", ignore_errors=True)
        shutil.rmtree(out / ".biascorr" / "pages", ignore_errors=True)
        command = [sys.executable, __file__, "once", str(out)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        once = json.loads(done.stdout.splitlines()[-1])
        first, *others = once["pages"]
        starts.append(once["start"] + first)
        seconds += others
        sizes.append(sum(path.stat().st_size for path in (out / "reports").rglob("*.*")) / len(once["pages"]))
    print(f"{len(seconds)} pages, {len(METHODS)} methods, {' x '.join(map(str, SHAPE))} voxels:")
    print(f"CPU seconds a page: {_spread(seconds)}")
    print(f"CPU seconds for the start and the first page, once: {_spread(starts)}")
    print(f"MB a page with its pictures: {statistics.median(sizes) / 1e6:.2f}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def _spread(values: list[float]) -> str:
    return f"median {statistics.median(values):.2f}, {min(values):.2f} to {max(values):.2f}"


def once(out: Path) -> None:
    """Make all pages of a cohort here, and print what each took."""
    from biascorr_pydra.report.collect import collect
    from biascorr_pydra.report.scan import write, write_scan_pages

    seconds = []
    make_one = write._make

    def timed(order):
        began = time.process_time()
        problems = make_one(order)
        seconds.append(time.process_time() - began)
        return problems

    write._make = timed
    began = time.process_time()
    done = write_scan_pages(collect(out), n_procs=1)
    if done.problems:
        sys.exit(f"the pages have problems: {done.problems[:3]}")
    print(json.dumps({"start": began, "pages": seconds}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("make")
    made.add_argument("out", type=Path)
    made.add_argument("--scans", type=int, default=4)
    measured = commands.add_parser("measure")
    measured.add_argument("out", type=Path)
    measured.add_argument("--repeats", type=int, default=5)
    commands.add_parser("once").add_argument("out", type=Path)
    chosen = parser.parse_args()
    if chosen.command == "make":
        make(chosen.out, chosen.scans)
    elif chosen.command == "measure":
        measure(chosen.out, chosen.repeats)
    else:
        once(chosen.out)


if __name__ == "__main__":
    main()
