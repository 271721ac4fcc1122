"""Record the SHA-256 of what the package computes and says through all of its faces, and compare two records.

    python benchmarks/same_outputs.py record HASHES.json [--only NAME ...]
    python benchmarks/same_outputs.py compare BEFORE.json AFTER.json

For changes that are to change no output, such as moving code: record before and after, on one machine with the same
dependencies, and compare. Only what users call is called: the package's functions, its two commands, the workflow
files, Pydra's tasks and Nipype's interfaces; those of the Python environment that runs this script, and the workflow
files and example data of the checkout that it lies in. Everything runs on one CPU thread.

What cannot be the same in two runs is left out or has a word put in its place: times, dates, versions of the software,
names of runs and of cached work, folders. Images are hashed as stored and, if they are compressed, unpacked too. Texts
are kept in the folder HASHES.texts, so that `compare` can show how two differ. With ``--only`` the cases named (as in
'python/n4*') are recorded and the others of HASHES.json kept; `record` saves after each case.
"""

from __future__ import annotations

import argparse
import fnmatch
import gzip
import hashlib
import importlib
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from functools import cache, partial
from itertools import islice, zip_longest
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
os.environ |= dict.fromkeys(THREADS, "1")
os.environ |= {"NO_ET": "1", "NIPYPE_NO_ET": "1", "TEMPLATEFLOW_AUTOUPDATE": "0"}  # nothing is sent or fetched
os.environ |= {"COLUMNS": "100", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"}
REPO = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # for Pydra's shell task
SCRATCH = Path()  # set by record()


@cache
def table() -> dict:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text())


# --- hashing


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def steady(text: str) -> str:
    """A text without what differs from run to run."""
    from biascorr_pydra import __version__

    for folder, word in ((SCRATCH, "SCRATCH"), (REPO, "REPO"), (Path(sys.prefix), "VENV")):
        text = text.replace(str(folder), word)
    text = re.sub(rf"(?<![\w.]){re.escape(__version__)}(?!\.?\w)", "VERSION", text)
    for word, patterns in table()["volatile"]["words"].items():
        text = re.sub("|".join(patterns), word, text, flags=re.MULTILINE)
    return text


def is_volatile(name: str) -> bool:
    """Whether a key of a JSON file or a column of a table, by its name, differs from run to run."""
    return re.fullmatch("|".join(table()["volatile"]["names"]), name) is not None


def without_volatile(value):
    """A JSON value without the entries that differ from run to run, and without the rows that are about them."""
    if isinstance(value, dict):
        return {name: without_volatile(item) for name, item in value.items() if not is_volatile(name)}
    if isinstance(value, list):
        rows = [set(map(str, row.values())) if isinstance(row, dict) else () for row in value]
        return [without_volatile(item) for item, row in zip(value, rows, strict=True) if not any(map(is_volatile, row))]
    return value


def steady_json(text: str) -> str:
    return steady(json.dumps(without_volatile(json.loads(text)), indent=1, default=str))


def steady_table(text: str) -> str:
    """A TSV without columns of times, and without rows that are about times."""
    rows = [line.split("\t") for line in text.splitlines()]
    kept = [i for i, name in enumerate(rows[0]) if not is_volatile(name)]
    rows = [[row[i] for i in kept] for row in rows]
    return steady("\n".join("\t".join(row) for row in rows if not any(map(is_volatile, row))))


READERS = {".json": steady_json, ".tsv": steady_table}
BINARY = {".png", ".jpg", ".safetensors", ".nii"}


def hashes_of(path: Path, name: str) -> dict[str, str]:
    """Output name -> hash, or text, of one file."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        return {f"{name} unpacked": sha256(gzip.decompress(raw)), f"{name} as stored": sha256(raw)}
    if path.suffix in BINARY:
        return {name: sha256(raw)}
    return {name: READERS.get(path.suffix, steady)(raw.decode())}


def hashes_in(folder: Path) -> dict[str, str]:
    """The same of every file in a folder, and the list of them; of what is kept for later runs, only the names."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    names = {name: path for name, path in names.items() if "work" not in Path(name).parts}
    outputs = {"files": "\n".join(names)}
    for name, path in names.items():
        if not any(fnmatch.fnmatch(name, pattern) for pattern in table()["volatile"]["files"]):
            outputs |= attempt(name, partial(hashes_of, path, name), plain=True)
    return outputs


def attempt(name: str, function, *, plain: bool = False) -> dict[str, str]:
    """What a function finds, its names after `name`; or its error, which is an output, too."""
    try:
        outputs = function()
    except Exception as error:
        return {f"{name}: error": steady(f"{type(error).__name__}: {error}")}
    return outputs if plain else {f"{name}: {key}": value for key, value in outputs.items()}


# --- what the cases work on


def inputs() -> dict[str, Path]:
    """Every image and folder that cases name."""
    return {name: SCRATCH / path for name, path in table()["inputs"].items()} | {"workflows": REPO / "workflows"}


def make_inputs() -> None:
    """Copy the example data, and make small images, a series, weights, label maps and photographs."""
    import nibabel as nib
    import numpy as np
    from PIL import Image

    for name in ("phantom", "phantom_truth", "real_t1w"):
        shutil.copytree(REPO / "bids_examples" / name, SCRATCH / name)
    files = inputs()
    shutil.copytree(SCRATCH / "phantom", files["study"])
    sites = "participant_id\tsite\nsub-01\tA\nsub-02\tB\nsub-03\tB\n"
    (files["study"] / "participants.tsv").write_text(sites)
    files["photos"].mkdir()
    files["labels"].mkdir()
    for name in ("t1w", "t1w_mask", "t2w", "t2w_mask", "dseg"):
        img = nib.load(files[name])
        img.slicer[tuple(slice(n // 2 - 12, n // 2 + 12) for n in img.shape)].to_filename(files[f"small_{name}"])
    t1w = nib.load(files["t1w"])
    data = t1w.get_fdata(dtype=np.float32)
    labels = np.choose(np.asarray(nib.load(files["dseg"]).dataobj, int), [0, 3, 2, 24])
    ramp = np.broadcast_to(np.linspace(0.8, 1.25, len(data))[:, None, None], data.shape)
    made = {"series": np.stack([data * gain for gain in (1, 1.02, 0.97)], -1), "weight": data / data.max()}
    made |= {"field": ramp, "labels/sub-01.nii.gz": labels, "labels/sub-02.nii.gz": labels[::-1]}
    for name, values in made.items():
        path = (SCRATCH / name) if name.endswith(".gz") else files[name]
        nib.Nifti1Image(values.astype(np.float32), t1w.affine).to_filename(path)
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(noise).resize((256, 256), Image.Resampling.BICUBIC).save(files["photos"] / f"{number}.png")


def with_files(options: dict) -> dict:
    """A task's options, the names of inputs among them as paths."""
    return {key: inputs().get(value, value) if isinstance(value, str) else value for key, value in options.items()}


# --- cases: each is given a folder of its own, and returns names and hashes, or texts


def in_python(folder: Path, in_file: str, *, uncertainty: bool = False, **options) -> dict[str, str]:
    """The files of one correction; where the gate let no field through, also of the one without the gate."""
    from biascorr_pydra import correct_file

    folder.mkdir(parents=True)
    files = {"bias_file": folder / "bias.nii.gz", "record_file": folder / "record.json"}
    files |= {"uncertainty_file": folder / "uncertainty.nii.gz"} if uncertainty else {}
    done = correct_file(inputs()[in_file], folder / "corrected.nii.gz", **files, **with_files(options))
    outputs = hashes_in(folder)
    if done.gate["applied"] == "none":
        outputs |= attempt("no gate", partial(in_python, folder / "no gate", in_file, **options, gate=False))
    return outputs


def python_case(method: str, preset: str, folder: Path) -> dict[str, str]:
    images, outputs = table()["images"], {}
    for title in images.get(f"{method}:{preset}") or images.get(method) or images["any"]:
        name, _, masked = title.partition("+")
        how = {"method": method, "preset": preset, "mask_file": f"{name}_mask" if masked else None}
        outputs |= attempt(title, partial(in_python, folder / title, name, **how))
    return outputs


def python_options(folder: Path) -> dict[str, str]:
    outputs = {}
    for name, options in table()["python"].items():
        outputs |= attempt(name, partial(in_python, folder / name, **{"in_file": "t1w", **options}))
    return outputs


def python_apply(folder: Path) -> dict[str, str]:
    from biascorr_pydra import apply_file

    refused = {}
    for name in ("t1w", "series", "real"):
        apply = partial(apply_file, inputs()["field"], inputs()[name], folder / f"{name}.nii.gz")
        refused |= attempt(name, lambda apply=apply: apply() or {})
    return hashes_in(folder) | refused


def python_in_memory(folder: Path) -> dict[str, str]:
    import nibabel as nib

    import biascorr_pydra

    img, mask = (nib.load(inputs()[name]) for name in ("t1w", "t1w_mask"))
    result = biascorr_pydra.correct_image(img, method="n4", mask=mask, uncertainty=True)
    outputs = {name: sha256(getattr(result, name).to_bytes()) for name in ("corrected", "bias", "uncertainty")}
    outputs |= {"public names": " ".join(biascorr_pydra.__all__)}
    return outputs | {"record": steady_json(json.dumps(result.correction.as_dict()))}


def in_shell(*commands: str, folder: Path) -> dict[str, str]:
    """What commands say, run one after the other in a folder, and every file that they write there."""
    outputs, names = {}, {**inputs(), "here": folder}
    for word, meaning in table()["words"].items():
        names[word] = meaning.format_map(names)
    for number, command in enumerate(commands, 1):
        program, *words = shlex.split(command.format_map(names))
        done = subprocess.run([BIN / program, *words], cwd=folder, capture_output=True, text=True, timeout=1800)
        streams = {"exit code": str(done.returncode), "stdout": done.stdout, "stderr": done.stderr}
        title = f"{number} {program} {steady(words[0])}"
        outputs |= {f"{title} {key}": steady(value) for key, value in streams.items()}
    return outputs | hashes_in(folder)


def files_of(values: dict) -> dict[str, str]:
    """The outputs of a task or an interface: hashes of those that are files, the others as text."""
    outputs = {}
    for name, value in values.items():
        several = value if isinstance(value, list | tuple) else [value]
        for number, one in enumerate(several):
            title = f"{name} {number}" if len(several) > 1 else name
            path = Path(str(one))
            outputs |= hashes_of(path, title + "".join(path.suffixes)) if path.is_file() else {title: steady(str(one))}
    return outputs


def pydra_case(task: str, options: dict, folder: Path) -> dict[str, str]:
    import attrs
    from pydra.tasks import biascorr

    outputs = getattr(biascorr, task)(**with_files(options))(worker="debug", cache_root=folder)
    return files_of({name: value for name, value in attrs.asdict(outputs, recurse=False).items() if name[0] != "_"})


def nipype_case(interface: str, options: dict, folder: Path) -> dict[str, str]:
    return files_of(find_in_nipype(interface)(**with_files(options)).run(cwd=folder).outputs.get())


def nipype_swap(folder: Path) -> dict[str, str]:
    from nipype.interfaces.ants import N4BiasFieldCorrection
    from nipype.pipeline import engine as pe

    flow = pe.Workflow("flow", base_dir=str(folder))
    flow.add_nodes([pe.Node(N4BiasFieldCorrection(input_image=inputs()["t1w"], n_iterations=[9, 5]), name="n4")])
    swapped = find_in_nipype("use_biascorr")(flow, "ubc")
    (node,) = flow.run("Linear").nodes()
    return {"swapped": str([tuple(one) for one in swapped])} | files_of(node.result.outputs.get())


def find_in_nipype(name: str):
    """One of the names for Nipype, in whichever module for Nipype this version of the package has it."""
    import biascorr_pydra

    for module in pkgutil.walk_packages(biascorr_pydra.__path__, "biascorr_pydra."):
        if "nipype" in module.name and hasattr(importlib.import_module(module.name), name):
            return getattr(importlib.import_module(module.name), name)
    raise ImportError(f"no module for Nipype has {name}")


def cases() -> dict:
    """Every case by its name: a function of its folder."""
    rows = table()
    cases = {"python/options": python_options, "python/apply": python_apply, "python/in memory": python_in_memory}
    listed = subprocess.run([BIN / "biascorr", "methods", "--json"], capture_output=True, text=True, check=True)
    for method in json.loads(listed.stdout):
        cases |= cases_of(method["name"], list(method["presets"]))
    for face, case in (("pydra", pydra_case), ("nipype", nipype_case)):
        cases |= {f"{face}/{name}": partial(case, name.split(",")[0], how) for name, how in rows[face].items()}
    cases["nipype/swap"] = nipype_swap
    return cases | {name: partial(in_shell, *commands) for name, commands in rows["commands"].items()}


def cases_of(method: str, presets: list[str]) -> dict:
    """Each preset in Python, and the first (of n4, each) through the other faces."""
    cases = {}
    for preset in presets:
        cases[f"python/{method}:{preset}"] = partial(python_case, method, preset)
    image = "small_t1w" if method in table()["images"] else "t1w"
    command = f"biascorr correct {{{image}}} C.nii.gz --mask-file {{{image}_mask}} --bias-file B.nii.gz"
    for preset in presets if method == "n4" else presets[:1]:
        words = f"{command} --record-file R.json --method {method} --preset {preset}"
        cases[f"command/{method}:{preset}"] = partial(in_shell, words)
    options = {"in_file": image, "mask_file": f"{image}_mask", "method": method}
    cases[f"pydra/CorrectBias of {method}"] = partial(pydra_case, "CorrectBias", options)
    cases[f"nipype/CorrectBias of {method}"] = partial(nipype_case, "CorrectBias", options)
    return cases


# --- the two commands


def record(file: Path, only: list[str]) -> int:
    global SCRATCH
    texts = file.with_suffix(".texts")
    texts.mkdir(parents=True, exist_ok=True)
    kept = json.loads(file.read_text()) if only and file.exists() else {"seconds": {}, "cases": {}}
    with tempfile.TemporaryDirectory(prefix="same-outputs-") as folder:
        SCRATCH = Path(folder).resolve()
        os.environ["TEMPLATEFLOW_HOME"] = str(SCRATCH / "templateflow")
        make_inputs()
        for name, case in cases().items():
            if only and not any(fnmatch.fnmatch(name, pattern) for pattern in only):
                continue
            began, place = time.monotonic(), SCRATCH / re.sub(r"\W+", "-", name)
            place.mkdir()
            outputs = attempt("case", partial(case, folder=place), plain=True)
            shutil.rmtree(place)
            kept["cases"][name] = {key: keep(value, texts) for key, value in outputs.items()}
            kept["seconds"][name] = round(time.monotonic() - began, 1)
            file.write_text(json.dumps(kept, indent=1) + "\n")
            print(f"{kept['seconds'][name]:6.1f} s  {name}: {len(outputs)} outputs", flush=True)
    minutes, outputs = sum(kept["seconds"].values()) / 60, sum(map(len, kept["cases"].values()))
    print(f"{len(kept['cases'])} cases, {outputs} outputs, {minutes:.1f} min: {file}")
    return 0


def keep(value: str, texts: Path) -> str:
    """A hash or a short text as it is; a long text as its hash, itself in a file of that name."""
    if len(value) <= 300 and "\n" not in value.strip():
        return value
    (texts / sha256(value.encode())).write_text(value)
    return sha256(value.encode())


def compare(before: Path, after: Path) -> int:
    records = [json.loads(file.read_text())["cases"] for file in (before, after)]
    old, new = ({f"{case}: {name}": text for case in one for name, text in one[case].items()} for one in records)
    differ = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    for name in differ:
        if name in old and name in new:
            print(f"DIFFERS  {name}")
            texts = [file.with_suffix(".texts") / one[name] for one, file in ((old, before), (new, after))]
            show(*(text.read_text() for text in texts)) if all(map(Path.is_file, texts)) else show(old[name], new[name])
        else:
            print(f"MISSING {'after' if name in old else 'before'}  {name}")
    print(f"{len({**old, **new}) - len(differ)} outputs are equal, {len(differ)} differ or are missing")
    return 1 if differ else 0


def show(old: str, new: str, most: int = 6) -> None:
    """The first lines that differ, from shortly before where they do."""
    pairs = zip_longest(old.splitlines(), new.splitlines(), fillvalue="")
    for one, other in islice(((one, other) for one, other in pairs if one != other), most):
        same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        begin = max(0, same - 60)
        print(f"    - {one[begin : begin + 200]}\n    + {other[begin : begin + 200]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("file", type=Path)
    recording.add_argument("--only", nargs="+", default=[], metavar="NAME")
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    given = parser.parse_args()
    return record(given.file, given.only) if given.command == "record" else compare(given.before, given.after)


if __name__ == "__main__":
    sys.exit(main())
