"""BIDS names taken apart and put together: ``sub-01_ses-1_desc-brain_mask.nii.gz``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Entities", "Name", "join", "parse"]

#: BIDS entities in the order of a file name, such as (("sub", "01"), ("ses", "1")).
Entities = tuple[tuple[str, str], ...]


class Name(NamedTuple):
    """A file's name, without its extension.

    Attributes
    ----------
    entities : pairs of key and label, in the order of the name
    suffix : what stands last: T1w, mask, dseg ...
    """

    entities: Entities
    suffix: str

    def label(self, key: str) -> str | None:
        """The label of an entity; None where the name has none."""
        return dict(self.entities).get(key)


def parse(file_name: str) -> Name:
    """Take a file name apart; parts that are no entity are left out.

    Examples
    --------
    >>> parse("sub-01_ses-1_T1w.nii.gz")
    Name(entities=(('sub', '01'), ('ses', '1')), suffix='T1w')
    """
    *parts, suffix = file_name.split(".", 1)[0].split("_")
    return Name(tuple((key, label) for key, dash, label in (part.partition("-") for part in parts) if dash), suffix)


def join(entities: Iterable[tuple[str, str]]) -> str:
    """A file name's beginning, up to the suffix.

    Examples
    --------
    >>> join([("sub", "01"), ("run", "2")])
    'sub-01_run-2'
    """
    return "_".join(f"{key}-{label}" for key, label in entities)
