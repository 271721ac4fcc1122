"""Make a cohort's written files without correcting anything, and measure its report.

    python benchmarks/report_cohort.py make OUT [--scans 1112] [--methods n4 ubc]
    python benchmarks/report_cohort.py measure OUT

`make` writes the output folder of a cohort as `pydra run workflows/correct_bids.py` leaves it: data sets with records,
sidecars and images of 64 voxels (a report of the cohort opens none), status.tsv, and beside OUT a data set with the
sites in participants.tsv. The 17 sites and their numbers of participants are ABIDE's, every other number is invented:
sites differ in contrast, noise and field; some scans are outliers (`sim: outlier` in `warnings` marks them), some
fields are rejected, some corrections failed. Seeded: the same options give the same files.

`measure` runs `biascorr report OUT` in a process of its own and prints its wall-clock time, peak memory and the page's
size.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np

from biascorr_pydra.bids import STATUS_COLUMNS, Job, output_paths, sidecar
from biascorr_pydra.judge import JUDGE_VERSION, RANKED_BY
from biascorr_pydra.metrics import HISTOGRAM_BINS, HISTOGRAM_RANGE

SITES = {
    **{"CALTECH": 38, "CMU": 27, "KKI": 55, "LEUVEN": 64, "MAX_MUN": 57, "NYU": 184, "OHSU": 28, "OLIN": 36},
    **{"PITT": 57, "SBL": 30, "SDSU": 36, "STANFORD": 40, "TRINITY": 49, "UCLA": 109, "UM": 145, "USM": 101},
    "YALE": 56,
}
#: What a method leaves of CJV and CV, on average, and its run time in seconds.
METHODS = {"n4": (0.82, 6.0), "ubc": (0.86, 0.9)}
OTHER_METHOD = (0.9, 3.0)
OUTLIERS, REJECTED, FAILED = 0.01, 0.01, 0.005  # shares of the scans
OUTLIER_FACTOR = 3.0


def make(out: Path, n_scans: int, methods: list[str], seed: int = 0) -> None:
    """Write the cohort, and its raw data set's participants.tsv in OUT/../raw."""
    rng = np.random.default_rng(seed)
    image = _image(out)
    raw = out.parent / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for method in methods:
        _write_json(
            out / method / "dataset_description.json",
            {
                "Name": method,
                "BIDSVersion": "1.11.0",
                "DatasetType": "derivative",
                "GeneratedBy": [{"Name": "biascorr_pydra"}],
                "DatasetLinks": {"raw": os.path.relpath(raw, out / method)},
            },
        )
    people, status = [("participant_id", "site")], [STATUS_COLUMNS]
    for number, site in enumerate(_sites(n_scans), start=1):
        label = f"{90000 + number:07d}"
        job = Job(Path("x"), f"sub-{label}/anat/sub-{label}_T1w.nii.gz", (("sub", label),), "T1w")
        people.append((f"sub-{label}", site))
        status += _write_scan(out, job, site, methods, rng, image)
    _write_table(raw / "participants.tsv", people)
    _write_table(out / "status.tsv", status)


def _sites(n_scans: int) -> list[str]:
    """The sites in ABIDE's proportions."""
    all_of_them = [site for site, n in SITES.items() for _ in range(n)]
    return [all_of_them[i * len(all_of_them) // n_scans] for i in range(n_scans)]


def _image(out: Path) -> bytes:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "tiny.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), path)
    content = path.read_bytes()
    path.unlink()
    return content


def _with_unevenness(values: dict) -> dict:
    """The numbers with the one that the judge ranks by, which moves with CJV here."""
    return values | dict.fromkeys(RANKED_BY, values["cjv"] / 2) | {"undefined": {}}


def _write_judge(out: Path, job: Job, judge: dict) -> None:
    """The judge's record: differences below 3% are within its noise."""
    pairs = []
    for first, second in combinations(judge["images"], 2):
        change = 100 * (judge["images"][second]["cjv"] / judge["images"][first]["cjv"] - 1)
        verdict = "cannot tell" if abs(change) < 3 else second if change < 0 else first
        changes = {key: [change, change - 3, change + 3] for key in RANKED_BY}
        pairs.append({"first": first, "second": second, "verdict": verdict, "changes": changes})
    record = {
        "source": f"bids:raw:{job.relative}",
        "suffix": job.suffix,
        "judge_version": JUDGE_VERSION,
        "reason": None,
    }
    record |= {"voxels": {"WM": 9000, "GM": 8000}, "pairs": pairs, "runtime_s": 0.9, **judge}
    path = (out / "judge" / job.relative).with_name(f"sub-{job.entity('sub')}_desc-{job.suffix}_judge.json")
    _write_json(path, record)


def _write_scan(out, job, site, methods, rng, image) -> list[tuple[str, str, str, str]]:
    index = list(SITES).index(site)
    noise = np.exp(rng.normal(0, 0.05, 8))
    outlier = rng.random() < OUTLIERS
    before = {
        "cjv": (0.55 + 0.02 * index) * noise[0] * (OUTLIER_FACTOR if outlier else 1),
        "cv_wm": (0.08 + 0.003 * index) * noise[1],
        "cv_gm": (0.15 + 0.003 * index) * noise[2],
        "wm_gm_contrast": (0.16 - 0.003 * index) * noise[3],
        "wm2max": 0.55 * noise[4],
        "cjv_mriqc": (0.5 + 0.02 * index) * noise[5],
        "cjv_smoothed": (0.4 + 0.02 * index) * noise[6],
    }
    rows = []
    judge: dict[str, dict] = {"images": {"acquired": _with_unevenness(before)}, "judged": {}, "left_out": {}}
    judge["delivered"] = {}
    for method in methods:
        left, seconds = METHODS.get(method, OTHER_METHOD)
        if rng.random() < FAILED:
            rows.append((job.relative, method, "failed", "UnreadableImageError: not a complete gzip file"))
            continue
        rejected = rng.random() < REJECTED
        factor = 1.0 if rejected else left * np.exp(rng.normal(0, 0.04))
        unchanged = ("wm_gm_contrast", "wm2max")
        after = {key: value * (1 if key in unchanged else factor) for key, value in before.items()}
        reasons = ["the image does not bear the field out: support 0.31, at least 0.55"] if rejected else []
        width = 0.35 * factor
        record = {
            "source": f"bids:raw:{job.relative}",
            "subject": job.entity("sub"),
            "suffix": job.suffix,
            "method": method,
            "method_version": "3",
            "gate": {
                "judged": True,
                "verdict": "rejected" if rejected else "accepted",
                "reasons": reasons,
                "applied": "none" if rejected else method,
            },
            "own_before": before,
            "own_after": after,
            "field": dict(zip(("inu_range", "inu_med", "field_min", "field_max"), _field(rng, index), strict=True)),
            "histogram": {
                "range": list(HISTOGRAM_RANGE),
                "before": _histogram(rng, index, 0.35),
                "after": _histogram(rng, index / 2, width),
            },
            "undefined": {},
            "segmentation": {"method": "atropos", "image": f"the scan as corrected by {method}"},
            "runtime_s": {
                "correct": seconds * float(np.exp(rng.normal(0, 0.2))),
                "skull_strip": 11.0,
                "segmentation": 25.0,
            },
            "warnings": ["sim: outlier"] if outlier else [],
        }
        paths = output_paths(job, out / method)
        for kind in ("corrected", "bias", "mask"):
            paths[kind].parent.mkdir(parents=True, exist_ok=True)
            paths[kind].write_bytes(image)
        about = {"Name": method, "Version": "3", "Preset": None, "Parameters": {"spline_mm": 200.0}, "Device": "cpu"}
        _write_json(sidecar(paths["corrected"]), {"Method": about, "SourceSHA256": "0" * 64})
        _write_json(paths["metrics"], record)
        state = "rejected" if rejected else "done"
        rows.append((job.relative, method, state, "; ".join(reasons) or "n/a"))
        judge["delivered"][method] = "key"
        if rejected:
            judge["left_out"][method] = "rejected by the gate: delivered as acquired"
        else:
            judge["images"][method], judge["judged"][method] = _with_unevenness(after), "key"
    _write_judge(out, job, judge)
    return rows


def _field(rng, index: int) -> tuple[float, float, float, float]:
    size = (0.2 + 0.02 * index) * float(np.exp(rng.normal(0, 0.1)))
    return size, 1.0, 1 - size, 1 + size


def _histogram(rng, index: float, width: float) -> list[int]:
    """Three tissues, the sites' contrasts apart by the index."""
    low, high = HISTOGRAM_RANGE
    x = np.linspace(low, high, HISTOGRAM_BINS, endpoint=False) + (high - low) / HISTOGRAM_BINS / 2
    tissues = ((0.45, 0.15), (0.95 - 0.004 * index, 0.4), (1.25 + 0.008 * index, 0.45))
    density = sum(part * np.exp(-0.5 * ((x - at) / (0.4 * width)) ** 2) for at, part in tissues)
    return np.maximum(np.round(5000 * density * np.exp(rng.normal(0, 0.05, x.size))), 0).astype(int).tolist()


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))


def _write_table(path: Path, rows: list[tuple[str, ...]]) -> None:
    with open(path, "w", newline="") as stream:
        csv.writer(stream, delimiter="\t", lineterminator="\n").writerows(rows)


def measure(out: Path, options: list[str]) -> None:
    """Print what one report costs."""
    command = [
        sys.executable,
        "-c",
        "from biascorr_pydra.interfaces.cli.main import main; main()",
        "report",
        str(out),
        *options,
    ]
    began = time.perf_counter()
    done = subprocess.run(command, check=False)
    taken = time.perf_counter() - began
    if done.returncode:
        sys.exit(done.returncode)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    page = (out / "report.html").stat().st_size
    print(
        f"{taken:.1f} s ({used.ru_utime + used.ru_stime:.1f} s of CPU), {used.ru_maxrss / 1024:.0f} MiB at most, "
        f"page {page / 1e6:.1f} MB; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("make")
    made.add_argument("out", type=Path)
    made.add_argument("--scans", type=int, default=sum(SITES.values()))
    made.add_argument("--methods", nargs="+", default=list(METHODS))
    measured = commands.add_parser("measure")
    measured.add_argument("out", type=Path)
    chosen, options = parser.parse_known_args()
    if chosen.command == "make":
        make(chosen.out, chosen.scans, chosen.methods)
    else:
        measure(chosen.out, options)


if __name__ == "__main__":
    main()
