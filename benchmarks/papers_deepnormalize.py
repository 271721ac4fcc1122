"""Tables 2 to 7 of the DeepNormalize paper (Delisle et al. 2022) on a study of simulated sites, ABIDE and Lesjak's.

    python benchmarks/deepnormalize_study.py STUDY --labels FOLDER --abide FOLDER --lesjak FOLDER
    python benchmarks/papers_deepnormalize.py STUDY --models FOLDER [--steps 150 --width 4 --batch 6]

Every model is trained equally long, from the same seed, on the first 6 training scans of each site; the tables are of
the test scans, whole, with patches every 24 mm unless a table says otherwise. The packaged weights, wider and trained
longer and on more, have rows of their own. The paper's numbers are of other data (iSEG, MRBrainS, ABIDE) and of 120
or 70 epochs of 40,000 patches.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from biascorr_pydra import weights
from biascorr_pydra.methods.deepnormalize import model, training_data
from biascorr_pydra.methods.deepnormalize.networks import CLASSES, DeepNormalize
from biascorr_pydra.methods.deepnormalize.score import score_scans
from biascorr_pydra.methods.deepnormalize.training import DeepNormalizeTraining
from biascorr_pydra.methods.deepnormalize.training_data import Scan, bias_ramp, find_scans, read_scan
from biascorr_pydra.training.run import run

DUAL, MULTI = ("adult", "isointense"), ("adult", "isointense", "abide")
# Model -> sites it is trained on, and what differs from DeepNormalize with lambda 1.5.
MODELS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "segmenter adult": (("adult",), {"model": "segmenter"}),
    "segmenter isointense": (("isointense",), {"model": "segmenter"}),
    "standardization dual": (DUAL, {"model": "standardization"}),
    "preprocessor dual": (DUAL, {"adversarial_weight": 0.0}),
    "ours dual": (DUAL, {}),
    "standardization multi": (MULTI, {"model": "standardization"}),
    "preprocessor multi": (MULTI, {"adversarial_weight": 0.0}),
    "ours multi": (MULTI, {}),
    "ours T1w+T2w": (DUAL, {"suffixes": "T1w,T2w"}),
    "lambda 0.1": (DUAL, {"adversarial_weight": 0.1}),
    "lambda 5": (DUAL, {"adversarial_weight": 5.0}),
}
ALPHAS = (0.3, 0.5, 0.7, 0.9)
TISSUES = CLASSES[1:]
PAPER_2 = {
    ("iSEG", "iSEG"): (0.920, 0.857, 0.828, 0.868),
    ("MRBrainS", "MRBrainS"): (0.861, 0.789, 0.839, 0.830),
    ("iSEG", "MRBrainS"): (0.401, 0.354, 0.519, 0.425),
    ("MRBrainS", "iSEG"): (0.293, 0.082, 0.563, 0.313),
}
PAPER_3 = {
    ("2 sites", "Standardization"): ((0.897, 0.836, 0.790, 0.841), (0.792, 0.498, 0.734, 0.675)),
    ("2 sites", "Pre-processor"): ((0.919, 0.860, 0.831, 0.870), (0.227, 0.517, 0.702, 0.482)),
    ("2 sites", "DeepNormalize"): ((0.912, 0.853, 0.836, 0.867), (0.245, 0.492, 0.595, 0.444)),
    ("3 sites", "Standardization"): ((0.860, 0.881, 0.856, 0.866), (0.264, 0.684, 0.812, 0.587)),
    ("3 sites", "Pre-processor"): ((0.922, 0.895, 0.870, 0.896), (0.251, 0.392, 0.530, 0.390)),
    ("3 sites", "DeepNormalize"): ((0.913, 0.887, 0.870, 0.890), (0.293, 0.422, 0.598, 0.438)),
}
PAPER_4 = {"2 sites": (2.0839, 0.2793, 0.2788), "3 sites": (12.2212, 0.4185, 0.4180)}
PAPER_5 = {
    "T1w": ((0.912, 0.853, 0.836, 0.867), (0.245, 0.492, 0.595, 0.444)),
    "T1w + T2w": ((0.910, 0.889, 0.862, 0.887), (0.165, 0.431, 0.493, 0.363)),
}
PAPER_6 = {  # alpha -> MRBrainS degraded, normalized; iSEG degraded, normalized
    0.3: (0.0982, 0.0534, 0.2560, 0.1192),
    0.5: (0.1963, 0.1422, 0.4264, 0.2430),
    0.7: (0.3103, 0.2393, 0.5914, 0.4599),
    0.9: (0.4368, 0.3649, 0.7316, 0.5928),
}
PAPER_7 = {0.1: (0.875, 98.95, 34.49), 1.5: (0.866, 44.10, 32.58), 5.0: (0.851, 44.07, 28.58)}


# --- trainings


def train_all(
    study: Path, models: Path, *, steps: int = 150, width: int = 4, batch: int = 6, only: Sequence[str] = ()
) -> None:
    """Train each model that is not trained yet, from scans that are read once for all of them."""
    training_data.read_scan = lru_cache(maxsize=128)(read_scan)
    for name in only or MODELS:
        sites, options = MODELS[name]
        file = weights_file(models, name)
        if file.exists():
            continue
        config = DeepNormalizeTraining(
            data=str(_study_of(study / "train", sites, models)),
            out=str(file.parent),
            held_out="0",
            learning_rate=3e-3,
            discriminator_rate=1e-3,
            steps=steps,
            batch=batch,
            width=width,
            discriminator_width=16,
            warm_up=steps // 8,
            schedule="cosine",
            precision="bfloat16",
            device="cpu",
            **options,
        )
        began = time.perf_counter()
        run(config)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


def weights_file(models: Path, name: str) -> Path:
    """Where a model's weights are."""
    return models / name.replace(" ", "-") / "deepnormalize.safetensors"


def _study_of(train: Path, sites: Sequence[str], models: Path, most: int = 6) -> Path:
    """A folder with links to the first scans of some sites; of one site, its data set."""
    for site in sites:
        small = models / "+".join(sites) / site
        small.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in sorted((train / site).glob("sub-*"))[:most]]
        for name in ("dataset_description.json", "participants.tsv", "derivatives", *names):
            if not (small / name).exists():
                (small / name).symlink_to((train / site / name).resolve())
    return small if len(sites) == 1 else small.parent


# --- evaluation


class Study:
    """The study's scans by site, read once."""

    def __init__(self, root: Path, stride: int, most: int | None = None):
        self.root, self.stride, self.most = root, stride, most
        self._kept: dict[tuple, list[Scan]] = {}
        self._scores: dict[tuple, tuple[DeepNormalize, dict]] = {}

    def scans(self, sites: Iterable[str], suffixes: tuple[str, ...] = ("T1w",), part: str = "test") -> list[Scan]:
        """Scans of these sites."""
        return [scan for site in sites for scan in self._of(site, suffixes, part)]

    def _of(self, site: str, suffixes: tuple[str, ...], part: str) -> list[Scan]:
        key = site, suffixes, part
        if key not in self._kept:
            scans = find_scans(str(self.root / part / site), suffixes, "derivatives")
            chosen = list(scans.values())[: self.most if part == "test" else 1]
            self._kept[key] = [read_scan(scan) for scan in chosen]
        return self._kept[key]

    def score(self, network: DeepNormalize, sites: Sequence[str], *, trained_on: Sequence[str], **how) -> dict:
        """Scores on the sites' test scans, or on one of each that was trained on; made once."""
        key = id(network), tuple(sites), tuple(how.items())
        if key not in self._scores:
            self._scores[key] = network, self._score(network, sites, trained_on, **how)
        return self._scores[key][1]

    def _score(self, network: DeepNormalize, sites: Sequence[str], trained_on: Sequence[str], **how) -> dict:
        suffixes = ("T1w", "T2w") if network.segmenter.down[0][0].in_channels == 2 else ("T1w",)
        part = how.pop("part", "test")
        scans = self.scans(sites, suffixes, part)
        return score_scans(network, scans, sorted(trained_on), stride=how.pop("stride", self.stride), **how)


@cache
def load(models: Path | None, name: str) -> DeepNormalize:
    """A model's network; with no folder, the packaged weights'."""
    source = str(weights_file(models, name)) if models else model.WEIGHTS
    return model.load_network(source, weights.sha256_of(source), "cpu")


def _row(scores: Mapping) -> dict[str, Any]:
    pairs = {"Dice": scores["dice"]}
    if "mean_hausdorff_mm" in scores:
        pairs["MHD (mm)"] = scores["mean_hausdorff_mm"]
    return {f"{t} {what}": _cell(measured[t], what) for t in (*TISSUES, "mean") for what, measured in pairs.items()}


def _cell(value: float | None, what: str) -> str:
    return "-" if value is None else f"{value:.3f}" if what == "Dice" else f"{value:.1f}"


def _paper_row(dice: Sequence[float], distance: Sequence[float]) -> dict[str, str]:
    both = zip((*TISSUES, "mean"), dice, distance, strict=True)
    return {f"{t} {what}": f"{v:.3f}" for t, d, h in both for what, v in (("Dice", d), ("MHD (mm)", h))}


# --- the tables


def table_2(study: Study, models: Path) -> pd.DataFrame:
    """A segmenter alone, trained on one site and tested on both."""
    lines = []
    for trained in DUAL:
        network = load(models, f"segmenter {trained}")
        for tested in DUAL:
            dice = study.score(network, [tested], trained_on=[trained])["dice"]
            lines.append({"Trained on": trained, "Tested on": tested, **{t: f"{dice[t]:.3f}" for t in dice}})
    for (trained, tested), values in PAPER_2.items():
        cells = {t: f"{v:.3f}" for t, v in zip((*TISSUES, "mean"), values, strict=True)}
        lines.append({"Trained on": f"paper: {trained}", "Tested on": tested, **cells})
    return pd.DataFrame(lines)


def tables_3_4(study: Study, models: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Dice and mean Hausdorff distance, and JSD, of the three methods on two and on three sites."""
    rows, jsd = [], []
    for label, sites, kind in (("2 sites", DUAL, "dual"), ("3 sites", MULTI, "multi")):
        line = {"Sites": label}
        for title, name in (
            ("Standardization", "standardization"),
            ("Pre-processor", "preprocessor"),
            ("DeepNormalize", "ours"),
        ):
            z_scores = name == "standardization"
            scores = study.score(
                load(models, f"{name} {kind}"),
                sites,
                trained_on=sites,
                distances=True,
                **({"z_scores": True} if z_scores else {}),
            )
            rows.append({"Sites": label, "Method": title, **_row(scores)})
            if not z_scores:
                line |= {"Input": f"{scores['jsd_before']:.4f}", title: f"{scores['jsd_after']:.4f}"}
        jsd.append(line)
    packaged = study.score(load(None, ""), MULTI, trained_on=MULTI, distances=True)
    rows.append({"Sites": "3 sites", "Method": "DeepNormalize, packaged weights", **_row(packaged)})
    jsd[-1] |= {"DeepNormalize, packaged": f"{packaged['jsd_after']:.4f}"}
    for (label, title), values in PAPER_3.items():
        rows.append({"Sites": f"paper: {label}", "Method": title, **_paper_row(*values)})
    for label, values in PAPER_4.items():
        names = ("Input", "Pre-processor", "DeepNormalize")
        jsd.append({"Sites": f"paper: {label}", **{n: f"{v:.4f}" for n, v in zip(names, values, strict=True)}})
    return pd.DataFrame(rows), pd.DataFrame(jsd).fillna("-")


def table_5(study: Study, models: Path) -> pd.DataFrame:
    """One modality and two."""
    lines = []
    for title, name in (("T1w", "ours dual"), ("T1w + T2w", "ours T1w+T2w")):
        lines.append(
            {"Modality": title, **_row(study.score(load(models, name), DUAL, trained_on=DUAL, distances=True))}
        )
    lines += [{"Modality": f"paper: {title}", **_paper_row(*values)} for title, values in PAPER_5.items()]
    return pd.DataFrame(lines)


def table_6(study: Study, network: DeepNormalize) -> pd.DataFrame:
    """Correlation of intensity with y in an axial slice, degraded and normalized, of one test scan a site."""
    lines = []
    for alpha in (0.0, *ALPHAS):
        line: dict[str, Any] = {"alpha": f"{alpha:g}"}
        for site in MULTI:
            degraded, normalized = correlations(study.scans([site])[0], network, alpha)
            line |= {f"{site} degraded": f"{degraded:.3f}", f"{site} normalized": f"{normalized:.3f}"}
        if alpha in PAPER_6:
            names = ("MRBrainS degraded", "normalized", "iSEG degraded", "normalized ")
            line |= {f"paper: {n}": f"{v:.3f}" for n, v in zip(names, PAPER_6[alpha], strict=True)}
        lines.append(line)
    return pd.DataFrame(lines).fillna("-")


def correlations(scan: Scan, network: DeepNormalize, alpha: float) -> tuple[float, float]:
    """Pearson correlation of the intensities in the brain with y, in the middle axial slice, before and after G."""
    image = scan.prepared.image
    rows = np.flatnonzero(image.any(axis=(0, 1, 3)))
    y = torch.arange(image.shape[2]) - int(rows[0])
    degraded = image * bias_ramp(y, len(rows), alpha).numpy()[None, None, :, None]
    degraded *= model.LEVEL / np.percentile(degraded[degraded > 0], model.PERCENTILE)
    half, middle = model.PATCH // 2, image.shape[3] // 2
    slab = np.ascontiguousarray(degraded[..., middle - half : middle + half], np.float32)
    normalized, _ = model.apply(network, slab, stride=8, bfloat16=model.has_bfloat16("cpu"))
    inside = slab[0, :, :, half] > 0
    where = np.broadcast_to(y.numpy(), inside.shape)[inside]
    return tuple(float(np.corrcoef(one[0, :, :, half][inside], where)[0, 1]) for one in (slab, normalized))


def table_7(study: Study, models: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean Dice and the discriminator's accuracy by lambda, and its confusion matrices on test patches (figure 9)."""
    lines, matrices = [], []
    for value, name in ((0.1, "lambda 0.1"), (1.5, "ours dual"), (5.0, "lambda 5")):
        network = load(models, name)
        test = study.score(network, DUAL, trained_on=DUAL, distances=value == 1.5)  # made already
        train = study.score(network, DUAL, trained_on=DUAL, part="train", stride=32)
        dice, on_train, on_test = PAPER_7[value]
        lines.append(
            {
                "lambda": f"{value:g}",
                "mean Dice": f"{test['dice']['mean']:.3f}",
                "accuracy train": f"{accuracy(train['confusion']):.1%}",
                "accuracy test": f"{accuracy(test['confusion']):.1%}",
                "JSD": f"{test['jsd_after']:.4f}",
                "paper: mean Dice": f"{dice:.3f}",
                "paper: train": f"{on_train}%",
                "paper: test": f"{on_test}%",
            }
        )
        for true, shares in test["confusion"].items():
            matrices.append({"lambda": f"{value:g}", "true class": true, **{k: f"{v:.2f}" for k, v in shares.items()}})
    return pd.DataFrame(lines), pd.DataFrame(matrices)


def accuracy(confusion: Mapping[str, Mapping[str, float]]) -> float:
    """Share of right answers, real and generated patches counting half each, as they are as many."""
    real = [shares[name] for name, shares in confusion.items() if name != "generated"]
    return (float(np.mean(real)) + confusion["generated"]["generated"]) / 2


def strides(study: Study, network: DeepNormalize, site: str = "abide") -> pd.DataFrame:
    """What a faster stride costs: Dice, and seconds of the clock and of the CPU, of one whole test scan, by stride."""
    lines = []
    scan = study.scans([site])[0]
    for stride in (8, 16, 32):
        began, used = time.perf_counter(), time.process_time()
        scores = score_scans(network, [scan], [], stride=stride)
        line: dict[str, Any] = {"stride (mm)": stride, **{f"{t} Dice": f"{v:.4f}" for t, v in scores["dice"].items()}}
        line |= {"s": f"{time.perf_counter() - began:.0f}", "CPU s": f"{time.process_time() - used:.0f}"}
        lines.append(line)
    return pd.DataFrame(lines)


def unseen(study: Study, network: DeepNormalize) -> pd.DataFrame:
    """Each test site by itself, Lesjak's among them, of which no scan was trained on."""
    lines = []
    for site in (*MULTI, "lesjak"):
        if not (study.root / "test" / site).is_dir():
            continue
        scores = study.score(network, [site], trained_on=MULTI, distances=True)
        lines.append({"Test site": site, "scans": scores["scans"], **_row(scores)})
    return pd.DataFrame(lines)


def tables(root: Path, models: Path | None, *, stride: int = 24, most: int | None = 1) -> dict[str, pd.DataFrame]:
    """Title -> table. Without a folder of models, those of the packaged weights only.

    The models are compared on ``most`` test scans a site.
    """
    study, packaged = Study(root, stride, most), load(None, "")
    frames: dict[str, pd.DataFrame] = {}
    if models:
        name = "Table 2 of 2022: Dice of a segmenter alone, on the site it was trained on and on the other"
        frames[name] = table_2(study, models)
        three, four = tables_3_4(study, models)
        frames["Table 3: Dice and mean Hausdorff distance on test scans"] = three
        frames["Table 4: JSD of the sites' intensities"] = four
        frames["Table 5: one modality and two"] = table_5(study, models)
    frames["Table 6: correlation of intensity with y in an axial slice, packaged weights"] = table_6(study, packaged)
    if models:
        seven, nine = table_7(study, models)
        frames["Table 7: lambda"] = seven
        frames["Figure 9: the discriminator's answers to test patches"] = nine
    frames["The packaged weights, site by site"] = unseen(Study(root, 16), packaged)
    frames["What a faster stride costs, packaged weights"] = strides(study, packaged)
    return frames


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="made by deepnormalize_study.py")
    parser.add_argument("--models", type=Path, help="folder for the trainings")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--only", nargs="*", default=[], choices=list(MODELS), help="train these, and make no table")
    parser.add_argument("--stride", type=int, default=24)
    parser.add_argument("--most", type=int, default=1, help="test scans a site to compare the models on")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    if given.models:
        train_all(given.study, given.models, steps=given.steps, width=given.width, batch=given.batch, only=given.only)
    if given.only:
        return
    for title, frame in tables(given.study, given.models, stride=given.stride, most=given.most).items():
        print(f"\n{title}\n\n| " + " | ".join(frame.columns) + " |\n" + "|---" * len(frame.columns) + "|", flush=True)
        for _, row in frame.iterrows():
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
