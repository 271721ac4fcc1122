"""What a method is cited by: a publication, or the software that it is part of."""

from __future__ import annotations

from dataclasses import dataclass

from biascorr_pydra import __version__

__all__ = ["N4ITK", "SOFTWARE", "Reference"]

#: What is not published in a journal or proceedings.
UNPUBLISHED = ("arXiv", "Software")


@dataclass(frozen=True)
class Reference:
    """A publication or a piece of software, in running text and as BibTeX.

    Attributes
    ----------
    key : of the BibTeX entry
    authors : "Family AB, Family C", separated by ", "; or the name of a group
    title : str
    where : journal with volume, proceedings, "arXiv:NUMBER", or "Software, version NUMBER"
    year : int, or None where there is none
    doi : without the address before it
    group : whether ``authors`` is the name of a group
    """

    key: str
    authors: str
    title: str
    where: str
    year: int | None = None
    doi: str = ""
    group: bool = False

    @property
    def text(self) -> str:
        """As a list of references has it."""
        year = f" ({self.year})" if self.year else ""
        doi = f" doi:{self.doi}" if self.doi else ""
        return f"{self.authors}{year}. {self.title}. {self.where}.{doi}"

    @property
    def cited(self) -> str:
        """As a sentence names it: first author and year."""
        return f"{self._first_author} {self.year}" if self.year else self._first_author

    @property
    def with_doi(self) -> str:
        """As text without a list of references names it."""
        parts = [self._first_author, str(self.year or ""), f"doi:{self.doi}" if self.doi else self.where]
        return ", ".join(part for part in parts if part)

    @property
    def bibtex(self) -> str:
        """A BibTeX entry."""
        unpublished = self.where.startswith(UNPUBLISHED)
        kind, place = ("misc", "howpublished") if unpublished else ("article", "journal")
        rows = {"author": f"{{{self.authors}}}" if self.group else self.authors.replace(", ", " and ")}
        rows |= {"title": f"{{{self.title}}}", place: self.where}
        rows |= {"year": str(self.year)} if self.year else {}
        rows |= {"doi": self.doi} if self.doi else {}
        return f"@{kind}{{{self.key},\n" + "".join(f"  {name} = {{{value}}},\n" for name, value in rows.items()) + "}"

    @property
    def _first_author(self) -> str:
        if self.group:
            return self.authors
        family = self.authors.split(" ")[0]
        return f"{family} et al." if ", " in self.authors else family


#: N4 itself, whoever implements it.
N4ITK = Reference(
    "tustison2010",
    "Tustison NJ, Avants BB, Cook PA, Zheng Y, Egan A, Yushkevich PA, Gee JC",
    "N4ITK: improved N3 bias correction",
    "IEEE Transactions on Medical Imaging 29(6)",
    2010,
    "10.1109/TMI.2010.2046908",
)
#: This package, for methods of its own that no paper describes; as in CITATION.cff.
SOFTWARE = Reference(
    "biascorr_pydra",
    "The biascorr_pydra developers",
    "biascorr_pydra: bias-field correction of MR images and BIDS cohorts",
    f"Software, version {__version__}",
    group=True,
)
