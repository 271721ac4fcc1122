"""Make docs/leaderboard.md: every method on the data sets that it names, by `biascorr bench`.

    python benchmarks/leaderboard.py --labels DIR --heads DIR --lesjak DIR --out OUT [--method METHOD ...] [--write]

DIR are folders with the data that docs/leaderboard.md names; those not given are left out. What is in OUT already is
not measured again. Without --method: every method and preset of the leaderboard. --write puts the result into docs/.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from biascorr_pydra.bench import MASKS, Sources, run_bench
from biascorr_pydra.methods import get_corrector, method_names

ROOT = Path(__file__).parents[1]
N4_PRESETS = ("biascorr", "antspy", "sitk", "niworkflows", "mriqc", "clinica")
#: These take up to minutes a scan, and so are measured on fewer scans of each data set.
SLOW = ("ants-n4", "n4:sitk")
FEWER = {"phantom": 4, "labels": 4, "heads": 1, "lesjak": 1}
BEGIN, END = "<!-- made by benchmarks/leaderboard.py -->", "<!-- end -->"


def every_method() -> list[str]:
    """Methods and presets of the leaderboard; a default preset goes by the method's name alone."""
    names = []
    for name in method_names():
        presets = {"n4": N4_PRESETS, "ants-n4": ("antspy",)}.get(name) or tuple(get_corrector(name).presets)
        names += [name if i == 0 else f"{name}:{preset}" for i, preset in enumerate(presets)]
    return names


def data_sets(options: argparse.Namespace) -> dict[str, dict]:
    """What is given to `Sources` for each data set."""
    examples = ROOT / "bids_examples"
    sources = {"phantom": {"data": [examples / "phantom"], "derivatives": [examples / "phantom_truth"]}}
    if options.labels:
        sources["labels"] = {"data": [options.labels], "select": ["seg_17.*", "seg_18.*"]}
    if options.heads:
        select = ["*_T1w.nii.gz", "*_T1fs_*", "ch2.nii.gz"]
        sources["heads"] = {"data": [options.heads], "select": select, "contrast": "T1w"}
    if options.lesjak:
        sources["lesjak"] = {"data": [options.lesjak], "select": ["study*"]}
    return sources


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("labels", "heads", "lesjak"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", action="append", help="repeatable")
    parser.add_argument("--write", action="store_true", help="replace the tables and the picture in docs/")
    options = parser.parse_args()
    methods = options.method or every_method()
    quick = [method for method in methods if not method.startswith(SLOW)]
    slow = [method for method in methods if method.startswith(SLOW)]
    for name, sources in data_sets(options).items():
        for group, limit in ((quick, None), (slow, FEWER[name])):
            if group:
                measure(sources, group, limit, options.out)
    if options.write:
        write(options.out)


def measure(sources: dict, methods: list[str], limit: int | None, out: Path) -> None:
    # Folders go by what is in them: where they lie on this machine is nobody's business.
    name = sources["data"][0].name
    command = f"benchmarks/leaderboard.py: {name}, {', '.join(methods)}" + (f", {limit} scans" if limit else "")
    result = run_bench(Sources(**sources, limit=limit), out, methods=methods, masks=MASKS, command=command, tell=tell)
    print(f"{name}: {result.measured} measured, {result.kept} kept, {result.failed} failed", flush=True)


def tell(line: str) -> None:
    print(line, flush=True)


def write(out: Path) -> None:
    """Put the tables of OUT/bench.md and its picture into docs/."""
    page = ROOT / "docs" / "leaderboard.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    body = (out / "bench.md").read_text().removeprefix("# Benchmark\n").replace("(bench.png)", "(leaderboard.png)")
    page.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}")
    shutil.copy(out / "bench.png", page.with_name("leaderboard.png"))


if __name__ == "__main__":
    main()
