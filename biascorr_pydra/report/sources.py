"""The tables of a cohort's source data sets, where these still lie where the derivatives say they do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["participants_files"]

PARTICIPANTS = "participants.tsv"


def participants_files(root: Path) -> Iterator[Path]:
    """The participants.tsv of the data sets that the output folder ``root`` was made from, as far as they are there."""
    for source in _sources(root.glob("*/dataset_description.json")):
        if (source / PARTICIPANTS).is_file():
            yield source / PARTICIPANTS


def _sources(descriptions: Iterable[Path]) -> Iterable[Path]:
    for description in sorted(descriptions):
        try:
            link = json.loads(description.read_text("utf-8"))["DatasetLinks"]["raw"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(link, str) and "://" not in link:
            yield description.parent / link
