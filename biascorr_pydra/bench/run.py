"""Run a benchmark into a folder: measure what is missing, then summarize all that is there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from biascorr_pydra.correction.estimate import estimate
from biascorr_pydra.errors import BiasCorrError, InvalidParameterError, OutputExistsError, WeightsError
from biascorr_pydra.images.files import write_bytes, write_text
from biascorr_pydra.lock import exclusive
from biascorr_pydra.methods import get_corrector
from biascorr_pydra.methods.corrector import Corrector, Scan
from biascorr_pydra.methods.identity import identity
from biascorr_pydra.resources import resolve_device

from .case import FACTS, Case, Planned
from .choices import MASKS
from .columns import columns
from .environment import environment
from .figure import draw
from .find import Sources, plan_cases
from .markdown import LEGEND, TESTS, failures, leaderboard, paired_table
from .scoring import corrector_of, score
from .store import Rows, write_table
from .summary import compare_methods, summarize

__all__ = ["FORMAT", "Bench", "run_bench", "with_presets"]

#: Changes when the same scan and estimate would get other scores.
FORMAT = 2
WARM_UP_VOXELS = 24


@dataclass(frozen=True)
class Bench:
    """What a run of the benchmark left.

    Attributes
    ----------
    rows, summary, paired : DataFrames, as in bench.tsv, summary.tsv and paired.tsv
    measured, kept, failed : how many rows of this call were measured now, were there already, have an error
    dropped : rows of an earlier run whose data have changed since
    """

    rows: pd.DataFrame
    summary: pd.DataFrame
    paired: pd.DataFrame
    measured: int
    kept: int
    failed: int
    dropped: int


@dataclass(frozen=True)
class _Method:
    """A method as it is run and as its rows are known."""

    name: str
    corrector: Corrector
    device: str
    seed: int
    implementation: str
    key: str
    error: str

    @classmethod
    def of(cls, name: str, device: str, seed: int) -> _Method:
        corrector = corrector_of(name)
        where = resolve_device(device) if corrector.uses_device else "cpu"
        made_by, error = _implementation(corrector)
        text = json.dumps([FORMAT, made_by, corrector.parameters(), where, seed], sort_keys=True, default=str)
        key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        return cls(name, corrector, where, seed, made_by, key, error)


def run_bench(
    sources: Sources,
    out_dir: str | Path,
    *,
    methods: Sequence[str],
    reference: str = "n4",
    masks: Sequence[str] = MASKS,
    device: str = "cpu",
    overwrite: bool = False,
    command: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Bench:
    """Measure methods on data, and write tables, tests and plots.

    Rows that an earlier run measured on the same data with the same version, weights, parameters, device and seed are
    kept; one with an error is tried again. Rows of other methods and other data in the folder stay, and are part of
    what is summarized.

    Parameters
    ----------
    sources : the data
    out_dir : gets bench.tsv (every scan, method and mask), summary.tsv and .json, paired.tsv, bench.md, bench.png,
        bench.svg and bench.json (settings, environment, columns)
    methods : METHOD, METHOD:PRESET, or METHOD:* for all of its presets
    reference : the method that the others are tested against
    masks : names in MASKS: what the methods are given besides the scan
    device : "auto", "cpu" or "cuda"
    overwrite : begin anew, whatever the folder has
    command : how this was called, for the record
    tell : called with a line of text for each row

    Raises
    ------
    UnknownMethodError, InvalidParameterError, BIDSError
        Before anything is measured: a method, option or folder that does not exist, or a folder of another benchmark.
    OutputExistsError
        bench.tsv is there and not ours.
    RunLockedError
        Another run is at work in ``out_dir``.
    """
    out = Path(out_dir)
    if unknown := set(masks) - set(MASKS):
        raise InvalidParameterError("no such mask", value=", ".join(unknown), next_step=f"One of: {', '.join(MASKS)}.")
    corrector_of(reference)
    run_by = [_Method.of(name, device, sources.seed) for name in with_presets(methods)]
    settings = {"format": FORMAT, "seed": sources.seed, "draws": sources.draws, "brain": sources.brain}
    earlier = [] if overwrite else _earlier_runs(out, settings)
    planned = list(plan_cases(sources))
    with exclusive(out, {"command": command or "biascorr bench"}):
        rows = Rows(out / "bench.tsv", anew=overwrite)
        dropped = rows.drop_stale({_facts(case.facts): case.key for case in planned})
        this_run = {"command": command, "date": time.strftime("%Y-%m-%d"), **environment(resolve_device(device))}
        record = {
            "GeneratedBy": "biascorr_pydra bench",
            "settings": settings,
            "reference": reference,
            "runs": [*earlier, this_run],
            "columns": columns(),
        }
        # Before anything is measured, so that a run that is killed can be gone on with, and is known of.
        _write_record(out, record)
        began = time.time()
        counts = _measure(planned, run_by, list(masks), rows, tell)
        rows.write()
        this_run |= {"seconds": round(time.time() - began), **counts}
        if not counts["measured"] and not counts["failed"]:
            record["runs"] = earlier
        frame = rows.frame()
        summary = summarize(frame, seed=sources.seed)
        paired = compare_methods(frame, reference=reference, seed=sources.seed)
        _write(out, frame, summary, paired, record)
    return Bench(frame, summary, paired, dropped=dropped, **counts)


def _implementation(corrector: Corrector) -> tuple[str, str]:
    """Version and weights as one string (no gate: what is measured is the estimate), and why the method cannot run."""
    try:
        return identity(corrector), ""
    except WeightsError as error:
        return f"{corrector.name} {corrector.version} no weights", str(error)


def with_presets(methods: Sequence[str]) -> list[str]:
    """Each name once; METHOD:* as the method's presets, of which the first goes by the method's name."""
    names = []
    for name in methods:
        method, _, preset = name.partition(":")
        presets = list(get_corrector(method).presets)
        names += [method, *(f"{method}:{other}" for other in presets[1:])] if preset == "*" else [name]
    return list(dict.fromkeys(names))


def _facts(facts: Mapping[str, Any]) -> tuple:
    return tuple(int(facts[name]) if name == "draw" else str(facts[name]) for name in FACTS)


def _earlier_runs(out: Path, settings: Mapping[str, Any]) -> list[dict]:
    """The runs recorded in a folder; refuses one that is not ours or was made with other settings."""
    if not (out / "bench.tsv").exists():
        return []
    try:
        record = json.loads((out / "bench.json").read_text())
        before, runs = record["settings"], record["runs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputExistsError(
            "bench.tsv is there, without the bench.json of a benchmark",
            file=out / "bench.tsv",
            next_step="Give another --out, or --overwrite.",
        ) from error
    differ = [
        f"{name} {before.get(name)!r}, now {value!r}" for name, value in settings.items() if before.get(name) != value
    ]
    if differ:
        raise InvalidParameterError(
            f"the benchmark in {out} was made with other settings",
            value="; ".join(differ),
            next_step="Give another --out, the settings of before, or --overwrite.",
        )
    return runs


# --- measuring


def _measure(planned: Sequence[Planned], methods: Sequence[_Method], masks, rows: Rows, tell) -> dict[str, int]:
    counts = dict.fromkeys(("measured", "kept", "failed"), 0)
    warm: set[str] = set()
    for number, plan in enumerate(planned, 1):
        wanted = [(method, mask) for method in methods for mask in masks]
        missing = [pair for pair in wanted if not _done(rows, plan, *pair)]
        counts["kept"] += sum(_measured(rows, plan, *pair) is not None for pair in wanted)
        if not missing:
            continue
        case, error = _made(plan)
        for method, mask in missing:
            if case is not None and mask == "brain" and case.brain_from == "head":
                rows.discard(plan.facts, method.name, mask)
                continue
            row = {"error": error} if case is None else _scored(method, case, mask == "brain", warm)
            row |= {**plan.facts, "method": method.name, "mask": mask, "implementation": method.implementation}
            row |= {"brain": case.brain_from if case else "", "case_key": plan.key, "method_key": method.key}
            rows.put(row)
            counts["failed" if row.get("error") else "measured"] += 1
            tell(f"[{number}/{len(planned)}] {_line(row)}")
        rows.write()
    return counts


def _measured(rows: Rows, plan: Planned, method: _Method, mask: str) -> dict[str, Any] | None:
    return rows.measured(plan.facts, method.name, mask, (plan.key, method.key))


def _done(rows: Rows, plan: Planned, method: _Method, mask: str) -> bool:
    if _measured(rows, plan, method, mask):
        return True
    # A case without a brain mask has no row of that kind, as the one without a mask tells.
    other = _measured(rows, plan, method, "none") if mask == "brain" else None
    return bool(other and other["brain"] == "head")


def _made(plan: Planned) -> tuple[Case | None, str]:
    try:
        return plan.make(), ""
    except Exception as error:  # whatever is wrong with one scan, the others go on; the row tells
        return None, _in_words(error)


def _scored(method: _Method, case: Case, masked: bool, warm: set[str]) -> dict[str, Any]:
    if method.error:
        return {"error": method.error}
    try:
        if method.name not in warm:
            _warm_up(method, case)
            warm.add(method.name)
        return score(method.corrector, case, masked=masked, device=method.device, seed=method.seed)
    except Exception as error:  # as above
        return {"error": _in_words(error)}


def _warm_up(method: _Method, case: Case) -> None:
    """Let a method load its libraries and weights on a few voxels, so that no scan's time and memory count them."""
    step = tuple(slice(None, None, max(1, n // WARM_UP_VOXELS)) for n in case.data.shape)
    small = Scan(case.data[step], case.valid[step], None, case.voxel_size_mm)
    try:
        estimate(method.corrector, case.affine, small, device=method.device, seed=method.seed)
    except BiasCorrError:
        return  # so few voxels may be too few for it; its first scan then tells, or pays


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, BiasCorrError) else f"{type(error).__name__}: {error}"


def _line(row: Mapping[str, Any]) -> str:
    head = " ".join(str(row[name]) for name in (*FACTS[:-1], "method", "mask"))
    if row.get("error"):
        return f"{head}: FAILED, {row['error']}"
    numbers = [row.get(name) for name in ("before", "residual_cov", "slope", "seconds")]
    before, residual, slope, seconds = (np.nan if value is None else value for value in numbers)
    return f"{head}: {before:.3f} -> {residual:.3f}, slope {slope:.2f}, {seconds:.2f} s"


# --- writing


def _write(out: Path, rows: pd.DataFrame, summary: pd.DataFrame, paired: pd.DataFrame, record: Mapping) -> None:
    write_table(summary, out / "summary.tsv")
    write_table(paired, out / "paired.tsv")
    tables = {"summary": summary, "paired": paired}
    content = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
    write_text(out / "summary.json", json.dumps(content, indent=1) + "\n")
    _write_record(out, record)
    write_text(out / "bench.md", _page(rows, summary, paired, record))
    for kind in ("png", "svg"):
        picture = draw(rows, kind)
        if picture:
            write_bytes(out / f"bench.{kind}", picture)


def _write_record(out: Path, record: Mapping) -> None:
    write_text(out / "bench.json", json.dumps(record, indent=1) + "\n")


def _page(rows: pd.DataFrame, summary: pd.DataFrame, paired: pd.DataFrame, record: Mapping) -> str:
    reference = record["reference"]
    failed = failures(rows)
    parts = [
        "# Benchmark\n",
        leaderboard(summary),
        "![Residual CoV, slope and time, scan by scan](bench.png)\n" if summary["n"].any() else "",
        LEGEND,
        f"## Paired tests against `{reference}`\n\n{TESTS}\n{paired_table(paired, reference)}",
        f"## Failed\n\n{failed}" if failed else "",
        f"## Environment\n\n{_environment_lines(record)}",
    ]
    return "\n".join(part for part in parts if part)


def _environment_lines(record: Mapping) -> str:
    lines = [f"- settings: {', '.join(f'{name} {value}' for name, value in record['settings'].items())}"]
    for run in record["runs"]:
        software = ", ".join(f"{name} {value}" for name, value in run["software"].items())
        done = "stopped before its end"
        if "seconds" in run:
            done = "{seconds} s, {measured} rows measured, {kept} kept, {failed} failed".format(**run)
        lines.append(
            f"- {run['date']}, {done}: `{run['command'] or 'run_bench'}`; {run['cpu']}, {run['cpus_usable']} CPUs, "
            f"{run['threads']} threads, device {run['device']}; Python {run['python']}, {software}"
        )
    return "\n".join(lines) + "\n"
