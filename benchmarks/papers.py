"""The tables of the papers, regenerated from the packaged weights on the data at hand: docs/papers.md in one command.

    python benchmarks/papers.py --labels LABEL_MAPS --only seg_17 seg_18 --photographs DIR --brainweb data.npz \\
        --t1w IMAGE ... --t2w IMAGE ... --flair IMAGE ... --mritc FOLDER --study STUDY --models FOLDER [--write]

What is not given is left out. Each part can be made alone: papers_getnet.py, papers_ubc.py, papers_deepnormalize.py,
whose STUDY deepnormalize_study.py makes.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import papers_deepnormalize
import papers_getnet
import papers_ubc

PAGE = Path(__file__).parent.parent / "docs" / "papers.md"
BEGIN, END = "<!-- made by benchmarks/papers.py -->", "<!-- end -->"


def sections(given: argparse.Namespace) -> dict[str, Mapping[str, pd.DataFrame]]:
    """Heading -> table's title -> table."""
    labels = sorted(given.labels.glob("*.nii.gz")) if given.labels else []
    labels = [file for file in labels if not given.only or file.name.partition(".")[0] in given.only]
    implicit = papers_getnet.tables(
        photographs_folder=given.photographs,
        labels=labels,
        brainweb_file=given.brainweb,
        scans=[*given.t1w, *given.t2w, *given.flair],
        quick=given.quick,
    )
    ubc = papers_ubc.tables(
        labels=labels[:1] if given.quick else labels, t1w=given.t1w, t2w=given.t2w, mritc_folder=given.mritc
    )
    tables_of = {"GetNet (2019) and implicit training (2022)": implicit, "UBC (2024)": ubc}
    if given.study:
        if given.models:
            papers_deepnormalize.train_all(given.study, given.models)
        tables_of["DeepNormalize (2022)"] = papers_deepnormalize.tables(given.study, given.models)
    return tables_of


def page(sections_tables: Mapping[str, Mapping[str, pd.DataFrame]]) -> str:
    """The tables as Markdown."""
    parts = []
    for heading, tables in sections_tables.items():
        parts.append(f"## {heading}")
        for title, table in tables.items():
            parts.append(f"### {TITLES.get(title, title)}\n\n{papers_getnet.markdown(table)}")
    return "\n\n".join(parts)


# Titles of the tables whose names are short.
TITLES = {
    "table_1": "Table 1 of 2019: relative MAE on simulated T1w heads, and time",
    "simulated": "The same methods on simulated heads: answer to a further known field, and what is left",
    "brainweb": "A BrainWeb slice with its true field; the published network beside",
    "photographs": "Photographs never seen: answer to a known field, and what is invented",
    "real": "Real scans: answer to a known field over the detected head",
}


def write(text: str, file: Path = PAGE) -> None:
    """Put the tables between the page's marks."""
    old = file.read_text()
    marked = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not marked.search(old):
        raise SystemExit(f"{file} has no marks {BEGIN} ... {END}")
    file.write_text(marked.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", old))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="folder of label maps (.nii.gz)")
    parser.add_argument("--only", nargs="*", default=[], help="names of the label maps to use; by default all")
    parser.add_argument("--photographs", type=Path, help="folder of photographs not trained on")
    parser.add_argument("--brainweb", type=Path, help="data.npz with v, g and g_hat")
    for suffix in ("t1w", "t2w", "flair"):
        parser.add_argument(f"--{suffix}", type=Path, nargs="*", default=[], help="real images")
    parser.add_argument("--mritc", type=Path, help="folder of mritc's phantom")
    parser.add_argument("--study", type=Path, help="DeepNormalize's study, made by deepnormalize_study.py")
    parser.add_argument("--models", type=Path, help="folder for the trainings of those tables")
    parser.add_argument("--quick", action="store_true", help="fewer heads and photographs")
    parser.add_argument("--write", action="store_true", help=f"also into {PAGE.name}")
    given = parser.parse_args(argv)
    text = page(sections(given))
    print(text)
    if given.write:
        write(text)


if __name__ == "__main__":
    main()
