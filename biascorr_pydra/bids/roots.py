"""The BIDS data sets of a multi-site study: the study's folder itself, or its subfolders.

Two layouts are known. INDI's ABIDE: one BIDS data set a site, or part of a site; its phenotypic file has unpadded ids::

    RawDataBIDS/Caltech/participants.tsv
                Caltech/T1w.json
                Caltech/sub-0051456/anat/sub-0051456_T1w.nii.gz
                MaxMun_a/...  MaxMun_b/...

and one BIDS data set whose participants.tsv has a column for the site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from biascorr_pydra.errors import BIDSError

from .jobs import DATASET_DESCRIPTION

__all__ = ["PARTICIPANTS", "SiteRoot", "find_site_roots", "inner_data_sets", "participants_by_root"]

NOT_SITES = ("derivatives", "sourcedata", "code", "stimuli", "phenotype")
RAW_DATA = "RawDataBIDS"
PARTICIPANTS = "participants.tsv"


@dataclass(frozen=True)
class SiteRoot:
    """One BIDS data set of a study; ``name`` is its folder's, "" where the study is this one data set."""

    name: str
    path: Path

    @property
    def described(self) -> bool:
        """Whether it has a dataset_description.json."""
        return (self.path / DATASET_DESCRIPTION).is_file()

    def has(self, suffix: str) -> bool:
        """Whether any participant has an image of this contrast."""
        return any(True for _ in self.path.glob(f"sub-*/**/*_{suffix}.nii*"))

    def inside(self, name: str) -> str:
        """A path in it, as the problems of a study name it."""
        return f"{self.name}/{name}" if self.name else name

    def participants(self) -> list[str]:
        """Labels, without "sub-", of its participants' folders."""
        return sorted(path.name.removeprefix("sub-") for path in self.path.glob("sub-*") if path.is_dir())


def find_site_roots(study_dir: str | Path) -> list[SiteRoot]:
    """The BIDS data sets of a study: the folder itself if it holds ``sub-*`` folders, else its subfolders that do.

    A folder that holds RawDataBIDS and no participants stands for that RawDataBIDS, as INDI's ABIDE does.

    Raises
    ------
    BIDSError
        There is no such folder, or no data set in it.
    """
    study_dir = Path(study_dir)
    if not study_dir.is_dir():
        raise BIDSError("no such folder", file=study_dir, next_step="Check the path of the study.")
    if SiteRoot("", study_dir).participants():
        return [SiteRoot("", study_dir)]
    folders = [path for path in sorted(study_dir.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    roots = [SiteRoot(path.name, path) for path in folders if path.name not in NOT_SITES]
    roots = [root for root in roots if root.participants() or (root.path / PARTICIPANTS).is_file()]
    if not roots and (study_dir / RAW_DATA).is_dir():
        return find_site_roots(study_dir / RAW_DATA)
    if not roots:
        raise BIDSError(
            "neither a BIDS data set nor a folder of them: no sub-* folder in it or in its subfolders",
            file=study_dir,
            next_step="Point to the data set's root, or to the folder with one BIDS data set a site.",
        )
    return roots


def inner_data_sets(root: SiteRoot) -> list[str]:
    """Names of folders inside a data set that are data sets of their own, which nothing else would speak of."""
    folders = [path for path in sorted(root.path.iterdir()) if path.is_dir() and path.name not in NOT_SITES]
    folders = [path for path in folders if not path.name.startswith((".", "sub-"))]
    return [path.name for path in folders if SiteRoot(path.name, path).participants()]


def participants_by_root(
    roots: Sequence[SiteRoot], participants: Sequence[str], study_dir: str | Path
) -> dict[SiteRoot, list[str]]:
    """Which of the participants asked for, with or without "sub-", each data set of a study has.

    Raises
    ------
    BIDSError
        One is in none of them.
    """
    asked = [label.removeprefix("sub-") for label in participants]
    present = {root: set(root.participants()) for root in roots}
    labels = {root: [label for label in asked if label in present[root]] for root in roots}
    missing = set(asked).difference(*present.values())
    if missing:
        raise BIDSError("no such participant in the study", file=study_dir, value=", ".join(sorted(missing)))
    return labels
