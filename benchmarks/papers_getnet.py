"""The tables of the implicitly trained correctors, getnet (2019) and implicit (2022), from the packaged weights.

    python benchmarks/papers_getnet.py [--photographs DIR] [--labels DIR] [--brainweb FILE] [--heads DIR ...] [--quick]

Of what is given, tables are made as Markdown:

table_1      of the paper of 2019, on simulated T1w heads: relative MAE against the head without a field, and time
brainweb     a BrainWeb slice with its true field and the published network's own estimate (data.npz of the authors)
photographs  how the networks answer to a known field on photographs never seen, and what they invent
simulated    the same on simulated heads, without and with the brain mask
real         the same on real scans, over the detected head

relative MAE  mean |s x_hat - x| / mean |x|, one factor s for an image, least squares over the head
slope         of log estimate(v k) - log estimate(v) on log k, for a further field k: 1 is right
pair          std/mean of estimate(v k) / estimate(v) / k, next to that of 1 / k ("before"): 0 is best
invented      standard deviation of the log field found where there is none

low-pass      getnet's shortcut alone, a homomorphic filter: log intensity by cells, smoothed; by the same B-spline.
              The implicit loss alone does not tell it from a corrector.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from biascorr_pydra import weights
from biascorr_pydra.correction.estimate import scan_on_grid
from biascorr_pydra.images.canonical import to_canonical
from biascorr_pydra.images.field import LogBiasSpline
from biascorr_pydra.images.head import detect_head
from biascorr_pydra.images.nifti import inspect, load, voxel_size_mm
from biascorr_pydra.methods import get_corrector, get_training
from biascorr_pydra.methods.corrector import Corrector, Estimate, Scan
from biascorr_pydra.methods.photographs import networks
from biascorr_pydra.methods.photographs.pictures import find_photographs, read_photographs
from biascorr_pydra.methods.photographs.slices import GRID, estimate_by_slices
from biascorr_pydra.methods.photographs.training import sample_pairs, score_responses
from biascorr_pydra.metrics import field_correlation, relative_mae, residual_cov, response_slope
from biascorr_pydra.simulation.heads import HeadSampler, inject_bias, load_label_map, sample_log_bias, simulate_head

METHODS = ("n4", "ants-n4", "low-pass", "getnet", "getnet:once", "implicit")
NETWORKS = {"getnet": networks.GetNet, "implicit": networks.ImplicitNet}
# Spans and standard deviation of the log fields: of Table 1, and of k.
GAIN, EXTRA = (2, 0.35), (2, 0.15)
PAPER = {
    "raw": (0.231, 0.212, 0.215, 0.217),
    "n4": (0.166, 0.083, 0.065, 0.057),
    "getnet": (0.152, 0.049, 0.031, 0.019),
}
TISSUES = {"CSF": (4, 5, 14, 15, 43, 44, 24), "GM": (3, 42, 8, 47), "WM": (2, 41, 7, 46)}


class LowPass(torch.nn.Module):
    """getnet's shortcut without its blocks."""

    def __init__(self):
        super().__init__()
        self.network = networks.GetNet()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network.shortcut(image)


@dataclasses.dataclass(frozen=True)
class LowPassCorrector(Corrector):
    """The low-pass as a corrector, to stand beside."""

    grid_shape = GRID

    def estimate(self, scan: Scan, *, device: str = "cpu", seed: int = 0) -> Estimate:
        passes = get_corrector("getnet")().passes
        return estimate_by_slices(LowPass().eval(), [scan], device=device, passes=passes)[0]


def correctors(names: Sequence[str] = METHODS) -> dict[str, Corrector]:
    made = {}
    for name in names:
        method, _, preset = name.partition(":")
        made[name] = LowPassCorrector() if name == "low-pass" else get_corrector(method).from_options(preset or None)
    return made


def network(name: str) -> torch.nn.Module:
    if name == "low-pass":
        return LowPass().eval()
    made = NETWORKS[name]()
    weights.load_network(made, name)
    return made.eval()


def log_bias_of(corrector: Corrector, data: np.ndarray, mask=None, size=(1.6, 1.6, 1.6)) -> tuple[np.ndarray, float]:
    """Log bias on the grid of ``data``, and seconds."""
    began = time.perf_counter()
    log_bias = corrector.estimate(Scan(data.astype(np.float32), np.ones(data.shape, bool), mask, size)).log_bias
    log_bias = log_bias.on_grid(data.shape) if isinstance(log_bias, LogBiasSpline) else log_bias
    return log_bias, time.perf_counter() - began


# --- Table 1


def table_1(labels: Sequence[Path], methods: Sequence[str] = METHODS, heads: int = 2) -> pd.DataFrame:
    """Relative MAE of simulated T1w heads with a field, raw and corrected, per tissue; means over the heads."""
    rows = []
    for file in labels:
        label_map = load_label_map(file, voxel_size_mm=1.0)
        for seed in range(heads):
            generator = torch.Generator().manual_seed(100 + seed)
            sampler = HeadSampler(contrasts=("T1w",), stripped=0.0, noise=(0.005, 0.015), max_elastic=0.02)
            parameters = dataclasses.replace(
                sampler.sample(generator), log_bias=sample_log_bias((GAIN[0],) * 3, GAIN[1], generator)
            )
            head = simulate_head(label_map, parameters, GRID)
            image, clean, numbered = head.image.numpy(), head.clean.numpy(), head.labels.numpy()
            masks = {"entire image": numbered > 0}
            masks |= {tissue: np.isin(numbered, numbers) for tissue, numbers in TISSUES.items()}
            rows.append({"method": "raw", **_errors(image, clean, masks)})
            for name, corrector in correctors(methods).items():
                log_bias, seconds = log_bias_of(corrector, image)
                rows.append({"method": name, **_errors(image / np.exp(log_bias), clean, masks), "seconds": seconds})
    table = pd.DataFrame(rows).groupby("method", sort=False).mean().reset_index()
    columns = ["entire image", *TISSUES]
    for column, values in zip(columns, zip(*PAPER.values(), strict=True), strict=True):
        table[f"paper: {column}"] = table["method"].map(dict(zip(PAPER, values, strict=True)))
    return table


def _errors(x_hat: np.ndarray, x: np.ndarray, masks: Mapping[str, np.ndarray]) -> dict[str, float]:
    head = masks["entire image"]
    scale = (x_hat[head] * x[head]).sum(dtype=float) / (x_hat[head] ** 2).sum(dtype=float)
    return {name: relative_mae(scale * x_hat, x, mask, scale="none") for name, mask in masks.items()}


# --- the BrainWeb slice


def brainweb(file: Path) -> pd.DataFrame:
    """v, g and the published network's g_hat: what each method finds of g in one slice, by itself."""
    with np.load(file) as stored:
        v, g, published = (stored[name].astype(np.float64) for name in ("v", "g", "g_hat"))
    head = v > 0.1 * np.percentile(v[v > 0], 99)
    fields = {"raw": np.ones_like(g), "published network": published}
    for name in ("low-pass", *NETWORKS):
        fields[name] = np.exp(_field_of_slice(network(name), v, head))
    rows = []
    for name, field in fields.items():
        known = name != "raw"
        rows.append(
            {
                "method": name,
                "relative MAE": relative_mae(v / field, v / g, head, scale="L2"),
                "residual_cov": residual_cov(field, g, head),
                "slope": response_slope(np.log(field), np.log(g), head) if known else None,
                "correlation": field_correlation(np.log(field), np.log(g), head) if known else None,
            }
        )
    return pd.DataFrame(rows)


def _field_of_slice(net: torch.nn.Module, v: np.ndarray, head: np.ndarray) -> np.ndarray:
    scaled = np.minimum(v / np.percentile(v[head], 99), 1).astype(np.float32)
    with torch.inference_mode():
        cells = net(torch.from_numpy(scaled)[None, None])
        field = torch.nn.functional.interpolate(cells, size=v.shape, mode="bicubic", align_corners=False)
    return field[0, 0].double().numpy()


# --- answers to a known field


def photographs(folder: Path, batches: int = 25) -> pd.DataFrame:
    """Responses on photographs never seen, as they are and as trained on, to each paper's own fields."""
    read = read_photographs(find_photographs(folder))
    rows = []
    for method in NETWORKS:
        training = get_training(method)(data=str(folder), out=".")
        for kind, plain in (("as they are", True), ("as trained on", False)):
            generator = torch.Generator().manual_seed(7)
            pairs = [sample_pairs(read, training.gains(generator), generator, plain=plain) for _ in range(batches)]
            for passes in (1, 2):  # the correctors' default is two
                with torch.inference_mode():
                    scores = score_responses(network(method), pairs, passes=passes)
                rows.append({"method": method, "photographs": kind, "passes": str(passes), **scores})
    return pd.DataFrame(rows)


def simulated(labels: Sequence[Path], methods: Sequence[str] = METHODS, quick: bool = False) -> pd.DataFrame:
    """Responses on simulated heads without a field of their own: means over the heads of each contrast."""
    rows = []
    for file in labels:
        label_map = load_label_map(file, voxel_size_mm=1.0)
        generator = torch.Generator().manual_seed(200)
        for contrast in ("T1w",) if quick else ("T1w", "T2w", "FLAIR"):
            for stripped in (False, True):
                sampler = HeadSampler(
                    contrasts=(contrast,), stripped=float(stripped), noise=(0.01, 0.03), max_elastic=0.02
                )
                parameters = dataclasses.replace(
                    sampler.sample(generator), log_bias=sample_log_bias((1, 1, 1), 0.0, generator)
                )
                head = simulate_head(label_map, parameters, GRID)
                log_k = _extra(GRID, generator)
                brain = head.brain.numpy()
                for name, corrector in correctors(methods).items():
                    for mask in (None, brain):
                        what = {"method": name, "contrast": contrast, "head": "stripped" if stripped else "whole"}
                        what["mask"] = "none" if mask is None else "brain"
                        rows.append({**what, **_answer(corrector, head.image.numpy(), log_k, brain, mask, True)})
    by = ["contrast", "head", "mask", "method"]
    return pd.DataFrame(rows).groupby(by, sort=False).mean().reset_index()


def real(files: Sequence[Path], methods: Sequence[str] = METHODS) -> pd.DataFrame:
    """Responses on real scans, over the detected head; and how far the field found reaches there."""
    rows = []
    for file in files:
        img = load(file)
        data, valid, _ = inspect(img)
        scan = scan_on_grid(LowPassCorrector(), img.affine, Scan(data, valid, None, voxel_size_mm(img)))
        head = to_canonical(detect_head(data).astype(np.float32), img.affine, GRID) >= 0.5
        log_k = _extra(GRID, torch.Generator().manual_seed(300))
        for name, corrector in correctors(methods).items():
            answer = _answer(corrector, scan.data, log_k, head, None, False, scan.voxel_size_mm)
            rows.append({"scan": file.name.removesuffix(".nii.gz"), "method": name, **answer})
    return pd.DataFrame(rows)


def _extra(shape: Sequence[int], generator: torch.Generator) -> np.ndarray:
    points = sample_log_bias((EXTRA[0],) * 3, EXTRA[1], generator).numpy()
    return LogBiasSpline.spanning(points, shape).on_grid(shape)


def _answer(corrector, data, log_k, region, mask, flat: bool, size=(1.6, 1.6, 1.6)) -> dict[str, float]:
    log_bias, seconds = log_bias_of(corrector, data, mask, size)
    with_k, _ = log_bias_of(corrector, inject_bias(data, log_k), mask, size)
    return {
        "slope": response_slope(with_k - log_bias, log_k, region),
        "before": residual_cov(np.ones_like(log_k), np.exp(log_k), region),
        "pair": residual_cov(np.exp(with_k - log_bias), np.exp(log_k), region),
        "invented" if flat else "sd of the field": float(log_bias[region].std()),
        "seconds": seconds,
    }


# --- all


def tables(
    *,
    photographs_folder: Path | None = None,
    labels: Sequence[Path] = (),
    brainweb_file: Path | None = None,
    scans: Sequence[Path] = (),
    methods: Sequence[str] = METHODS,
    quick: bool = False,
) -> dict[str, pd.DataFrame]:
    """Every table whose data are given, by name; printed as Markdown as they are done.

    Parameters
    ----------
    photographs_folder : images that the networks were not trained on
    labels : label maps of whole heads (.nii.gz, FreeSurfer numbers)
    brainweb_file : data.npz with v, g and g_hat
    scans : real scans (.nii.gz)
    methods : "low-pass", or a method, or method:preset
    quick : fewer heads and photographs
    """
    return dict(_made(photographs_folder, labels, brainweb_file, scans, methods, quick))


def _made(photographs_folder, labels, brainweb_file, scans, methods, quick) -> Iterator[tuple[str, pd.DataFrame]]:
    wanted: dict[str, Callable[[], pd.DataFrame]] = {}
    if labels:
        wanted["table_1"] = lambda: table_1(labels, methods, heads=1 if quick else 2)
        # ITK's N4 is n4's, and slow at so many heads.
        wanted["simulated"] = lambda: simulated(labels, [name for name in methods if name != "ants-n4"], quick)
    if brainweb_file:
        wanted["brainweb"] = lambda: brainweb(brainweb_file)
    if photographs_folder:
        wanted["photographs"] = lambda: photographs(photographs_folder, batches=5 if quick else 25)
    if scans:
        wanted["real"] = lambda: real(scans[:2] if quick else scans, [name for name in methods if name != "ants-n4"])
    for name, make in wanted.items():
        table = make()
        print(f"\n### {name}\n\n{markdown(table)}", flush=True)
        yield name, table


def markdown(table: pd.DataFrame) -> str:
    def cell(value) -> str:
        if isinstance(value, str):
            return value
        return "" if value is None or pd.isna(value) else f"{value:.3f}"

    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="folder of photographs not trained on")
    parser.add_argument("--labels", type=Path, help="folder of label maps")
    parser.add_argument("--only", nargs="*", help="names of the label maps to use, without .nii.gz")
    parser.add_argument("--brainweb", type=Path, help="data.npz with v, g and g_hat")
    parser.add_argument("--scans", type=Path, nargs="*", default=[], help="real scans, or folders of them")
    parser.add_argument("--methods", nargs="*", default=METHODS, help="low-pass, method, or method:preset")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help="folder for one TSV a table")
    given = parser.parse_args(argv)
    labels = sorted(given.labels.glob("*.nii.gz")) if given.labels else []
    if given.only:
        labels = [file for file in labels if file.name.removesuffix(".nii.gz") in given.only]
    scans = [file for path in given.scans for file in (sorted(path.rglob("*.nii.gz")) if path.is_dir() else [path])]
    made = tables(
        photographs_folder=given.photographs,
        labels=labels,
        brainweb_file=given.brainweb,
        scans=scans,
        methods=given.methods,
        quick=given.quick,
    )
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        for name, table in made.items():
            table.to_csv(given.out / f"{name}.tsv", sep="\t", index=False, float_format="%.5f")


if __name__ == "__main__":
    main()
