"""How often the do-no-harm gate is wrong, how its limits were chosen, and what it costs.

    python benchmarks/gate.py measure --labels FOLDER --only seg_01 ... --out train.tsv
    python benchmarks/gate.py choose train.tsv
    python benchmarks/gate.py calibrate --labels FOLDER --only seg_17 seg_18 [--pairs SCAN ...] --out FOLDER
    python benchmarks/gate.py table ROWS ... --out FOLDER
    python benchmarks/gate.py time SCAN [--methods n4 ubc]

measure    For every head simulated from label maps: the fields that methods find, and absurd ones made from them, each
           with the gate's numbers and with what it does to the brain.
choose     The limits on sharpening and support under which the least non-uniformity is left, over all these heads.
calibrate  Rates of wrong verdicts on scans that the limits were not chosen on, as table and curve.
table      The same table and curve again, from what calibrate or measure wrote.
time       Seconds of the gate beside those of the correction, on one scan.

The truth: a correction helped (or harmed) if the residual coefficient of variation over the brain, std/mean of
estimated / true field, fell (or rose) by more than 0.005 against no correction. What changes less is neither. Real
scans have no known field: SCAN is freed of what N4 finds in its brain mask, and multiplied by known fields.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from gate_rates import choose, curve, judged, table
from scipy import ndimage

from biascorr_pydra.anatomy.brain import extract_brain
from biascorr_pydra.correction.estimate import estimate_in_full
from biascorr_pydra.images import nifti
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Scan
from biascorr_pydra.metrics import residual_cov
from biascorr_pydra.quality import field_numbers
from biascorr_pydra.simulation.heads import HeadSampler, load_label_map, sample_log_bias, simulate_head
from biascorr_pydra.single import correct_file

CONTRASTS = ("T1w", "T2w", "FLAIR")
# Name -> B-spline spans per axis over the image, and standard deviation of the log field over it.
FIELDS = {"none": (1, 0.0), "weak": (2, 0.05), "smooth": (1, 0.2), "rough": (4, 0.15)}
METHODS = ("n4", "n4+mask", "ubc")
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
RIM_MM = 12.0


# --- fields, and what they do


def found_fields(img_data, affine, brain, size, methods) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Each method's log field, with the mask it was given, or the brain that it found."""
    for method in methods:
        name, _, masked = method.partition("+")
        mask = brain if masked else None
        corrector = get_corrector(name.partition(":")[0]).from_options(name.partition(":")[2] or None)
        scan = Scan(img_data, np.ones(img_data.shape, bool), mask, size)
        log_bias, estimate = estimate_in_full(corrector, affine, scan, device="cpu", seed=0)
        yield method, log_bias, mask if mask is not None or estimate.brain is None else estimate.brain


def absurd_fields(log_bias, data, region, size, rng) -> Iterator[tuple[str, np.ndarray]]:
    """Wrong fields, made from a right one."""
    shape = data.shape
    yield "doubled", 2 * log_bias
    yield "inverted", -log_bias
    yield "six times", 6 * log_bias
    coarse = rng.normal(size=(14, 14, 14))
    bumps = ndimage.zoom(coarse, [n / 14 for n in shape], order=1)
    yield "rough", log_bias + 0.15 * bumps / bumps.std()
    yield "elsewhere", np.roll(log_bias, [n // 3 for n in shape], (0, 1, 2))
    low = np.percentile(data[region], 2)
    log_image = np.where(region, np.log(np.maximum(data, max(low, 1e-6))), 0)
    thin = (slice(None, None, 3),) * 3  # smooth enough to be made coarsely
    width = [20 / mm / 3 for mm in size]
    weight = ndimage.gaussian_filter(region[thin].astype(np.float32), width)
    smooth = ndimage.gaussian_filter(log_image[thin].astype(np.float32), width) / np.maximum(weight, 0.05)
    yield "low-pass", ndimage.zoom(smooth, [n / m for n, m in zip(shape, smooth.shape, strict=True)], order=1)


def row(data, log_bias, mask, head, brain, truth, size) -> dict:
    """The gate's numbers of a field, and what it does to the brain."""
    region = head if mask is None else mask
    rim_mm = RIM_MM if mask is None else 0.0
    numbers = field_numbers(data, np.exp(log_bias), region, size, rim_mm=rim_mm)
    before = residual_cov(np.ones_like(truth), np.exp(truth), brain)
    return {"before": before, "after": residual_cov(np.exp(log_bias), np.exp(truth), brain), **(numbers or {})}


def simulated(files: Sequence[Path], seeds: int) -> Iterator[tuple[dict, np.ndarray, np.ndarray, np.ndarray]]:
    """Description, image, true log field and brain of heads of three contrasts, whole and stripped."""
    for file in files:
        labels = load_label_map(file, voxel_size_mm=1.0)
        number = int("".join(filter(str.isdigit, file.name.split(".")[0])) or 0)
        for seed in range(seeds):
            for index, contrast in enumerate(CONTRASTS):
                generator = torch.Generator().manual_seed(100000 * seed + 100 * number + index)
                for kind in ("whole", "stripped"):
                    fixed = {"stripped": float(kind == "stripped"), "noise": (0.01, 0.04), "max_elastic": 0.02}
                    parameters = HeadSampler(contrasts=(contrast,), **fixed).sample(generator)
                    for name, (spans, sd) in FIELDS.items():
                        log_bias = sample_log_bias((spans,) * 3, sd, generator)
                        head = simulate_head(labels, dataclasses.replace(parameters, log_bias=log_bias))
                        about = {"scan": file.name.split(".")[0], "seed": seed, "contrast": contrast, "kind": kind}
                        yield about | {"field": name}, head.image.numpy(), head.log_bias.numpy(), head.brain.numpy()


def measure(heads, methods: Sequence[str], affine=AFFINE, *, absurd: bool = True) -> Iterator[dict]:
    """A row for each head, method and field."""
    rng = np.random.default_rng(0)
    for about, data, truth, brain in heads:
        size = tuple(float(mm) for mm in np.linalg.norm(affine[:3, :3], axis=0))
        head = detect_head(data)
        for method, log_bias, mask in found_fields(data, affine, brain, size, methods):
            how = (data, log_bias, mask, head, brain, truth, size)
            yield about | {"method": method, "estimate": "as found"} | row(*how)
            if absurd and method.startswith(("n4", "deepem")):
                region = head if mask is None else mask
                for kind, wrong in absurd_fields(log_bias, data, region, size, rng):
                    yield about | {"method": method, "estimate": kind} | row(data, wrong, *how[2:])


# --- real scans


def real(scans: Sequence[Path]) -> Iterator[tuple[dict, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Description, image, true log field, brain and affine of real scans that are multiplied by known fields.

    A scan has a field of its own. It is first divided by what N4 finds in the brain mask; what is left of it is taken
    for none, which favours n4+mask. Scans finer than 1.5 mm are seen at every second voxel.
    """
    for number, file in enumerate(scans):
        img = nifti.load(file)
        steps = [2 if mm < 1.5 and n > 100 else 1 for mm, n in zip(nifti.voxel_size_mm(img), img.shape, strict=True)]
        suffix = next((name for name in ("FLAIR", "T2", "T1") if name in file.name.upper()), "T1")
        suffix = suffix if suffix == "FLAIR" else f"{suffix}w"
        mask = extract_brain(img, suffix=suffix).mask
        img = img.slicer[tuple(slice(None, None, step) for step in steps)]
        brain = mask[tuple(slice(None, None, step) for step in steps)]
        data, _, _ = nifti.inspect(img)
        size = nifti.voxel_size_mm(img)
        _, own, _ = next(found_fields(data, img.affine, brain, size, ["n4+mask"]))
        generator = torch.Generator().manual_seed(number)
        for name, (spans, sd) in FIELDS.items():
            points = sample_log_bias((spans,) * 3, sd, generator).numpy()
            log_bias = LogBiasSpline.spanning(points, data.shape).on_grid(data.shape)
            about = {"scan": file.name.split(".")[0], "seed": 0, "contrast": suffix, "kind": "real", "field": name}
            yield about, data * np.exp(log_bias - own), log_bias, brain, img.affine


# --- what it costs


def times(file: Path, methods: Sequence[str], repeats: int) -> str:
    """What the gate takes beside the rest of the correction from file to file, in one run, as Markdown.

    By the clock, as the record has it; and in CPU time, with and without the gate by turns, which other work on the
    machine disturbs less.
    """
    heads = [
        "method",
        "correction s",
        "gate s",
        "gate / correction",
        "CPU s without",
        "CPU s with",
        "with / without - 1",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for method in methods:
        name, _, preset = method.partition(":")
        rest, gate, cpu = [], [], {True: [], False: []}
        for _ in range(repeats + 1):
            for on in (False, True):
                began = time.process_time()
                seconds = _correct_once(file, name, preset or None, on)
                cpu[on].append(time.process_time() - began)
            gate.append(seconds["gate"])
            rest.append(sum(seconds.values()) - gate[-1])
        rest, gate = np.array(rest[1:]), np.array(gate[1:])  # the first loads libraries and weights
        without, with_ = np.array(cpu[False][1:]), np.array(cpu[True][1:])
        cells = [f"{np.median(rest):.2f}", f"{np.median(gate):.3f}", _spread(gate / rest)]
        cells += [f"{np.median(without):.2f}", f"{np.median(with_):.2f}", _spread(with_ / without - 1)]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _correct_once(file: Path, method: str, preset: str | None, gate: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        out_file, bias_file = (Path(folder) / name for name in ("out.nii.gz", "bias.nii.gz"))
        how = {"method": method, "preset": preset, "device": "cpu", "gate": gate}
        return dict(correct_file(file, out_file, bias_file=bias_file, **how).runtime_s)


def _spread(ratio: np.ndarray) -> str:
    return f"{np.median(ratio):.3f} ({ratio.min():.3f} to {ratio.max():.3f})"


def label_maps(folder: Path, only: Sequence[str] | None) -> list[Path]:
    files = [f for f in sorted(folder.glob("*.nii.gz")) if not only or f.name.removesuffix(".nii.gz") in only]
    if not files:
        raise SystemExit(f"no label maps in {folder}")
    return files


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("measure", "calibrate"):
        one = commands.add_parser(name)
        one.add_argument("--labels", type=Path, required=True, help="folder of label maps (.nii.gz)")
        one.add_argument("--only", nargs="*", help="names of the label maps to use, without .nii.gz; by default all")
        one.add_argument("--methods", nargs="+", default=METHODS, help="METHOD[:PRESET], with +mask for the brain mask")
        one.add_argument("--seeds", type=int, default=1)
        one.add_argument("--no-absurd", action="store_true", help="only what the methods find")
        one.add_argument("--out", type=Path, required=True, help="a .tsv file, or for calibrate a folder")
    one.add_argument("--pairs", type=Path, nargs="*", default=[], help="real scans")
    one = commands.add_parser("choose")
    one.add_argument("rows", type=Path, nargs="+", help="what measure wrote")
    one = commands.add_parser("table")
    one.add_argument("rows", type=Path, nargs="+", help="what measure or calibrate wrote")
    one.add_argument("--out", type=Path, required=True, help="folder for gate.md and gate.png")
    one = commands.add_parser("time")
    one.add_argument("scan", type=Path)
    one.add_argument("--methods", nargs="+", default=("n4", "ubc"))
    one.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(argv)
    if options.command == "time":
        print(times(options.scan, options.methods, options.repeats))
    elif options.command == "choose":
        print(choose(pd.concat(map(read, options.rows))).head(20).to_string(index=False, float_format="%.4f"))
    elif options.command == "table":
        write(pd.concat(map(read, options.rows), ignore_index=True), options.out)
    else:
        files = label_maps(options.labels, options.only)
        heads = simulated(files, options.seeds)
        rows = list(measure(heads, options.methods, absurd=not options.no_absurd))
        if options.command == "measure":
            save(rows, options.out)
            return
        for *head, affine in real(options.pairs):
            rows += measure([head], options.methods, affine, absurd=not options.no_absurd)
        options.out.mkdir(parents=True, exist_ok=True)
        save(rows, options.out / "gate.tsv")
        write(read(options.out / "gate.tsv"), options.out)


def read(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, sep="\t", keep_default_na=False, na_values=[""])


def save(rows: Sequence[dict], file: Path) -> None:
    pd.DataFrame(rows).to_csv(file, sep="\t", index=False, float_format="%.5f")


def write(rows: pd.DataFrame, folder: Path) -> None:
    rows = judged(rows)
    text = table(rows)
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gate.md").write_text(text + "\n")
    curve(rows, folder / "gate.png")


if __name__ == "__main__":
    main()
