"""Measure our N4 against antspyx: agreement, time and memory, in one run on one machine.

    python benchmarks/n4.py [NAME=IMAGE.nii.gz ...] [--out TABLE.md] [--repeats 3] [--threads 2] [--agreement]

Without images a whole-head-like phantom of 1 mm is made from the MNI152 that nilearn bundles. Both programs get the
same array, mask (the detected head) and number of threads; each repeat times them one after the other, so that
whatever else the machine does falls on both. Ratios are antspyx's time over ours.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

METHODS = ("ants-n4", "n4")


def phantom(seed: int = 0):
    """A 1 mm head of 193 x 229 x 193 voxels: MNI152 brain, skull and scalp around it, a field, Rician noise."""
    from nilearn.datasets import load_mni152_template
    from scipy import ndimage

    template = load_mni152_template(resolution=1)
    data = template.get_fdata(dtype=np.float32)[2:195, 2:231, 2:195]
    brain = ndimage.binary_fill_holes(data > 0)
    distance = ndimage.distance_transform_edt(~brain)
    rng = np.random.default_rng(seed)
    data = data / data.max() * 900
    data[(distance > 0) & (distance <= 5)] = 120
    data[(distance > 5) & (distance <= 12)] = 700
    x, y, z = (
        np.linspace(-1, 1, n).reshape(s)
        for n, s in zip(data.shape, np.ones((3, 3), int) - 2 * np.eye(3, dtype=int), strict=True)
    )
    field = np.exp(0.3 * x - 0.25 * y**2 + 0.2 * y * z + 0.15 * np.sin(2 * z)).astype(np.float32)
    noisy = np.hypot(data * field + rng.normal(0, 10, data.shape), rng.normal(0, 10, data.shape))
    return noisy.astype(np.float32), template.affine


def load_scan(file: str, *, mask: str = "head"):
    """The array, its mask and its voxel size as a Scan."""
    from biascorr_pydra.images import nifti
    from biascorr_pydra.images.head import detect_head
    from biascorr_pydra.methods.corrector import Scan

    if file.endswith(".npz"):  # as save_scan() wrote it, so that a child's peak is not that of detecting the head
        arrays = np.load(file)
        return Scan(arrays["data"], np.ones(arrays["data"].shape, bool), arrays["mask"], tuple(arrays["size"].tolist()))
    img = nifti.load(file)
    data, valid, _ = nifti.inspect(img)
    chosen = None if mask == "ones" else detect_head(data)
    return Scan(np.ascontiguousarray(data), valid, chosen, nifti.voxel_size_mm(img))


def save_scan(scan, folder: str) -> str:
    file = str(Path(folder) / "scan.npz")
    np.savez(file, data=scan.data, mask=scan.mask, size=scan.voxel_size_mm)
    return file


def corrector(method: str, preset: str = "antspy", **options):
    from biascorr_pydra.methods import get_corrector

    return get_corrector(method).from_options(preset, **options)


def dense(estimate, shape) -> np.ndarray:
    """The bias field on the full grid, which is part of what is timed: antspyx returns it too."""
    log_bias = estimate.log_bias
    return np.exp(log_bias if isinstance(log_bias, np.ndarray) else log_bias.on_grid(shape))


def timed(method: str, scan, **options) -> tuple[tuple[float, float], np.ndarray]:
    """Wall and CPU seconds, and the field."""
    wall, cpu = time.perf_counter(), time.process_time()
    bias = dense(corrector(method, **options).estimate(scan), scan.data.shape)
    return (time.perf_counter() - wall, time.process_time() - cpu), bias


def agreement(field: np.ndarray, expected: np.ndarray, mask: np.ndarray | None) -> dict[str, float]:
    """Relative difference of two fields in the mask."""
    inside = slice(None) if mask is None else mask
    relative = np.abs(field[inside].astype(float) / expected[inside] - 1)
    quantiles = np.quantile(relative, (0.5, 0.99, 0.999))
    return dict(zip(("median", "p99", "p99.9", "max"), (*quantiles.tolist(), float(relative.max())), strict=True))


def child(method: str, file: str, options: dict) -> dict[str, float]:
    """Run one method in a process of its own: whole-process time and peak memory."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--child", method, file, json.dumps(options)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return {"seconds": time.perf_counter() - started, **json.loads(out.stdout.splitlines()[-1])}


def peak_mib() -> float:
    """Peak resident memory of this process since it began to run this program (Linux).

    Not ru_maxrss: a child begins with the peak of the process that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run_child(method: str, file: str, options: dict) -> None:
    scan = load_scan(file)
    before = peak_mib()
    if method != "nothing":
        timed(method, scan, **options)
    print(json.dumps({"loaded_mib": before, "peak_mib": peak_mib()}))


def speed(name: str, file: str, shrinks, repeats: int, iterations) -> tuple[list[str], list[str], list[str]]:
    """Rows of the agreement, speed and memory tables for one image."""
    rows = ([], [], [])
    scan = load_scan(file)
    with tempfile.TemporaryDirectory() as folder:
        return _speed(name, scan, save_scan(scan, folder), shrinks, repeats, iterations, rows)


def _speed(name, scan, file, shrinks, repeats, iterations, rows):
    for shrink in shrinks:
        options = {"shrink_factor": shrink, "iterations": iterations}
        timed("n4", scan, **options | {"iterations": [1]})  # imports and first calls
        times, fields = {method: [] for method in METHODS}, {}
        for _ in range(repeats):
            for method in METHODS:
                seconds, fields[method] = timed(method, scan, **options)
                times[method].append(seconds)
        whole = [{method: child(method, file, options) for method in METHODS} for _ in range(min(repeats, 2))]
        walls = {method: np.array(values)[:, 0] for method, values in times.items()}
        ratios, cpu_ratios = (np.array(times["ants-n4"]) / np.array(times["n4"])).T
        outside = np.array([w["ants-n4"]["seconds"] / w["n4"]["seconds"] for w in whole])
        differences = agreement(fields["n4"], fields["ants-n4"], scan.mask)
        label = f"{name}, {' x '.join(map(str, scan.data.shape))}, shrink {shrink}, {_levels(iterations)}"
        rows[0].append(f"| {label}, head | " + " | ".join(f"{v:.1e}" for v in differences.values()) + " |")
        rows[1].append(
            f"| {label} | {np.median(walls['n4']):.2f} s | {np.median(walls['ants-n4']):.1f} s "
            f"| **{np.median(ratios):.0f}** ({ratios.min():.0f} to {ratios.max():.0f}) "
            f"| {np.median(cpu_ratios):.0f} ({cpu_ratios.min():.0f} to {cpu_ratios.max():.0f}) "
            f"| {np.median(outside):.0f} ({outside.min():.0f} to {outside.max():.0f}) |"
        )
        peak = {method: max(w[method]["peak_mib"] for w in whole) for method in METHODS}
        base = child("nothing", file, options)["peak_mib"]
        rows[2].append(f"| {label} | {base:.0f} | {peak['n4']:.0f} | {peak['ants-n4']:.0f} |")
        print(*(row[-1] for row in rows), sep="\n", flush=True)
    return rows


def _levels(iterations) -> str:
    same = len(set(iterations)) == 1
    return f"{iterations[0]} x {len(iterations)}" if same else ", ".join(map(str, iterations))


CASES = {
    "defaults, head": ("head", {}),
    "ones": ("ones", {}),
    "shrink 3": ("head", {"shrink_factor": 3}),
    "mesh 2 x 3 x 2": ("head", {"mesh": (2, 3, 2)}),
    "spline distance 200 mm": ("head", {"spline_distance_mm": 200.0}),
    "5 levels": ("head", {"iterations": (10,) * 5}),
    "tolerance 0.001": ("head", {"tolerance": 0.001}),
    "100 bins": ("head", {"bins": 100}),
    "FWHM 0.3": ("head", {"fwhm": 0.3}),
    "Wiener noise 0.1": ("head", {"wiener_noise": 0.1}),
    "weight image": ("weight", {}),
}


def agreements(name: str, file: str, iterations) -> list[str]:
    """One row for each option, on one image at shrink 4 unless said otherwise."""
    from dataclasses import replace

    rows = []
    for case, (mask, options) in CASES.items():
        scan = load_scan(file, mask=mask)
        if mask == "weight":
            scan = replace(scan, weight=(scan.data / scan.data.max()).astype(np.float32))
        options = {"shrink_factor": 4, "iterations": iterations, **options}
        fields = [timed(method, scan, **options)[1] for method in METHODS]
        values = " | ".join(f"{v:.1e}" for v in agreement(fields[1], fields[0], scan.mask).values())
        rows.append(f"| {name}, {_levels(options['iterations'])}: {case} | {values} |")
        print(rows[-1], flush=True)
    return rows


def profile(file: str, shrink: int) -> list[str]:
    """Where our time goes: share of each pass, measured around it."""
    from biascorr_pydra.methods.n4 import iterate, prepare, voxels

    scan, spent = load_scan(file), {}

    def watch(owner, name, label):
        function = getattr(owner, name)

        def watched(*args, **kwargs):
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[label] = spent.get(label, 0) + time.perf_counter() - started

        setattr(owner, name, watched)
        return lambda: setattr(owner, name, function)

    passes = {
        "start_level": "start of levels",
        "range": "range of the histogram",
        "histogram": "histogram",
        "fit": "sharpened values and B-spline fit",
        "update": "field evaluation and convergence",
    }
    undo = [watch(voxels.SlabVoxels, name, label) for name, label in passes.items()]
    undo.append(watch(iterate, "sharpening_table", "deconvolution (FFTs of 512)"))
    undo.append(watch(prepare, "prepare", "preparation"))
    started = time.perf_counter()
    estimate = corrector("n4", shrink_factor=shrink).estimate(scan)
    estimated = time.perf_counter()
    dense(estimate, scan.data.shape)
    spent["field at full resolution"] = time.perf_counter() - estimated
    total = time.perf_counter() - started
    for restore in undo:
        restore()
    spent["everything else"] = total - sum(spent.values())
    voxels = estimate.record["n_voxels_used"] * estimate.record["iterations"]
    lines = [f"| {label} | {seconds:.3f} s | {seconds / total:.0%} |" for label, seconds in spent.items()]
    visits = f"{voxels / 1e6:.0f} million voxel visits, {1e9 * (estimated - started) / voxels:.1f} ns each"
    return [*lines, f"| all; {visits} | {total:.3f} s | 100% |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="*", help="NIfTI images; NAME=FILE gives the name used in the tables")
    parser.add_argument("--out", help="write the tables to this Markdown file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shrink", type=int, nargs="+", default=[4, 2])
    parser.add_argument("--iterations", type=int, nargs="+", default=[50] * 4, help="for each level")
    parser.add_argument("--agreement", action="store_true", help="also compare option by option on the first image")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(options.child[0], options.child[1], json.loads(options.child[2]))
        return
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(options.threads)  # read when antspyx is imported
    import torch

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        images = dict(name.split("=", 1) if "=" in name else (Path(name).name, name) for name in options.images)
        if not images:
            import nibabel as nib

            data, affine = phantom()
            file = str(Path(folder) / "phantom.nii.gz")
            nib.save(nib.Nifti1Image(data, affine), file)
            images = {"MNI152 phantom, 1 mm": file}
        tables = ([], [], [])
        for name, file in images.items():
            for table, rows in zip(
                tables, speed(name, file, options.shrink, options.repeats, options.iterations), strict=True
            ):
                table += rows
        first_name, first = next(iter(images.items()))
        more = agreements(first_name, first, options.iterations) if options.agreement else []
        profiles = {shrink: profile(first, shrink) for shrink in options.shrink}
    text = render(tables, more, profiles, first_name, options)
    if options.out:
        Path(options.out).write_text(text)
    print(text)


def render(tables, more, profiles, name, options) -> str:
    heads = (
        "| image and options | median | p99 | p99.9 | max |\n|---|---|---|---|---|",
        "| image | n4 | antspyx | ratio in process (range) | ratio of CPU seconds (range) "
        "| ratio of whole processes (range) |\n|---|---|---|---|---|---|",
        "| image | without correction | n4 | antspyx |\n|---|---|---|---|",
        "| pass | time | share |\n|---|---|---|",
    )
    parts = [
        f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads each, {options.repeats} repeats.",
        "### Agreement: relative difference of the fields in the mask\n\n" + "\n".join([heads[0], *tables[0], *more]),
        "### Speed: medians, antspyx's time over ours\n\n" + "\n".join([heads[1], *tables[1]]),
        "### Peak memory of a whole process, MiB\n\n" + "\n".join([heads[2], *tables[2]]),
    ]
    for shrink, rows in profiles.items():
        parts.append(f"### Where our time goes: {name}, shrink {shrink}\n\n" + "\n".join([heads[3], *rows]))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
