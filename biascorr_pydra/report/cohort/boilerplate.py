"""What was done, in sentences to be pasted into a methods section, with the references they need.

The sentences are made from the records and sidecars, so that they say what was run, not what is the default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from biascorr_pydra import __version__
from biascorr_pydra.quality import NEGLIGIBLE, NOT_JUDGED, REJECTED
from biascorr_pydra.report.collect import Result

__all__ = ["REFERENCES", "Boilerplate", "Reference", "boilerplate"]


@dataclass(frozen=True)
class Reference:
    """A publication, in running text and as BibTeX."""

    key: str
    authors: str
    title: str
    where: str
    year: int
    doi: str = ""

    @property
    def text(self) -> str:
        doi = f" doi:{self.doi}" if self.doi else ""
        return f"{self.authors} ({self.year}). {self.title}. {self.where}.{doi}"

    @property
    def cited(self) -> str:
        """As a sentence names it: first author and year."""
        return f"{self.authors.split(' ')[0]} et al. {self.year}"

    @property
    def with_doi(self) -> str:
        """As text without a list of references names it."""
        first = f"{self.authors.split(' ')[0]} et al., {self.year}"
        return f"{first}, doi:{self.doi}" if self.doi else f"{first}, {self.where}"

    @property
    def bibtex(self) -> str:
        kind, place = ("misc", "howpublished") if self.where.startswith("arXiv") else ("article", "journal")
        rows = {"author": self.authors.replace(", ", " and ")}
        rows |= {"title": f"{{{self.title}}}", place: self.where, "year": str(self.year)}
        if self.doi:
            rows["doi"] = self.doi
        return f"@{kind}{{{self.key},\n" + "".join(f"  {name} = {{{value}}},\n" for name, value in rows.items()) + "}"


N4 = Reference(
    "tustison2010",
    "Tustison NJ, Avants BB, Cook PA, Zheng Y, Egan A, Yushkevich PA, Gee JC",
    "N4ITK: improved N3 bias correction",
    "IEEE Transactions on Medical Imaging 29(6)",
    2010,
    "10.1109/TMI.2010.2046908",
)
UBC = Reference(
    "perezcaballero2024",
    "Perez-Caballero M, Morell-Ortega S, Ruiz-Perez M, Coupé P, Manjón JV",
    "Unsupervised Deep Learning Method for MRI Bias Correction",
    "Medical Imaging with Deep Learning (MIDL), short papers",
    2024,
)
GETNET = Reference(
    "simko2019",
    "Simkó A, Löfstedt T, Garpebring A, Nyholm T, Jonsson J",
    "A Generalized Network for MRI Intensity Normalization",
    "arXiv:1909.05484",
    2019,
)
IMPLICIT = Reference(
    "simko2022",
    "Simkó A, Löfstedt T, Garpebring A, Nyholm T, Jonsson J",
    "MRI bias field correction with an implicitly trained CNN",
    "Medical Imaging with Deep Learning (MIDL)",
    2022,
)
DEEPNORMALIZE = Reference(
    "delisle2022",
    "Delisle PL, Anctil-Robitaille B, Desrosiers C, Lombaert H",
    "Realistic image normalization for multi-domain segmentation",
    "Medical Image Analysis",
    2022,
)
DEEPBET = Reference(
    "fisch2024",
    "Fisch L, Zumdick S, Barkhau C, Emden D, Ernsting J, Leenings R, Sarink K, Winter NR, Risse B, Dannlowski U, "
    "Hahn T",
    "deepbet: fast brain extraction of T1-weighted MRI using convolutional neural networks",
    "Computers in Biology and Medicine 179",
    2024,
    "10.1016/j.compbiomed.2024.108845",
)
ANTS = Reference(
    "avants2011a",
    "Avants BB, Tustison NJ, Song G, Cook PA, Klein A, Gee JC",
    "A reproducible evaluation of ANTs similarity metric performance in brain image registration",
    "NeuroImage 54(3)",
    2011,
    "10.1016/j.neuroimage.2010.09.025",
)
FONOV = Reference(
    "fonov2011",
    "Fonov V, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL",
    "Unbiased average age-appropriate atlases for pediatric studies",
    "NeuroImage 54(1)",
    2011,
    "10.1016/j.neuroimage.2010.07.033",
)
ATROPOS = Reference(
    "avants2011b",
    "Avants BB, Tustison NJ, Wu J, Cook PA, Gee JC",
    "An open source multivariate framework for n-tissue segmentation with evaluation on public data",
    "Neuroinformatics 9(4)",
    2011,
    "10.1007/s12021-011-9109-y",
)

UNIFIED = Reference(
    "ashburner2005",
    "Ashburner J, Friston KJ",
    "Unified segmentation",
    "NeuroImage 26(3)",
    2005,
    "10.1016/j.neuroimage.2005.02.018",
)

#: Whom to cite, by method of bias correction, brain extraction or segmentation.
REFERENCES: dict[str, tuple[Reference, ...]] = {
    "n4": (N4,),
    "ants-n4": (N4,),
    "ubc": (UBC,),
    "getnet": (GETNET,),
    "implicit": (IMPLICIT,),
    "deepem": (UNIFIED,),
    "deepnormalize": (DEEPNORMALIZE,),
    "deepbet": (DEEPBET,),
    "template": (ANTS, FONOV),
    "atropos": (ATROPOS,),
}
DECIDED = {
    NEGLIGIBLE: "found the field negligible, and the image was passed on unchanged",
    REJECTED: "rejected the field",
}


@dataclass(frozen=True)
class Boilerplate:
    """Sentences and the references they name."""

    sentences: list[str]
    references: list[Reference]


def boilerplate(results: Iterable[Result]) -> Boilerplate:
    """What was done to one scan by each method that has a record."""
    cited: dict[str, Reference] = {}

    def named(method: str) -> str:
        found = REFERENCES.get(method, ())
        cited.update({reference.key: reference for reference in found})
        return f"{method} ({'; '.join(reference.cited for reference in found)})" if found else method

    results = [result for result in results if result.record]
    sentences = [sentence for result in results for sentence in _correction(result, named)]
    sentences += [_segmentation(result, named) for result in results]
    return Boilerplate([s for s in dict.fromkeys(sentences) if s], list(cited.values()))


def _correction(result: Result, named) -> list[str]:
    about = _mapping(result, "Method")
    name = about.get("Name") or result.record.get("method") or result.method
    version = _mapping(result, "Software").get("biascorr_pydra", __version__)
    preset = about.get("Preset") or result.record.get("preset")
    weights = about.get("WeightsSHA256")
    how = [f"preset {preset}"] if preset else []
    how += [f"weights with SHA-256 {weights[:12]}…"] if isinstance(weights, str) else []
    in_brackets = f" ({', '.join(how)})" if how else ""
    brain = result.sidecar.get("MaskMethod") or result.record.get("skull_strip")
    where = f"within a brain mask by {named(str(brain))}" if brain and brain != "none" else "without a brain mask"
    made = (
        f"The {result.suffix} image was corrected for intensity non-uniformity with {named(str(name))}, as implemented "
        f"in biascorr_pydra {version}{in_brackets}, {where}."
    )
    return [made, _verdict(result, str(name))]


def _mapping(result: Result, key: str) -> Mapping[str, Any]:
    found = result.sidecar.get(key)
    return found if isinstance(found, Mapping) else {}


def _verdict(result: Result, name: str) -> str:
    if result.verdict is None or result.verdict == NOT_JUDGED:
        return f"The field estimated by {name} was divided out without being judged."
    applied = result.part("gate").get("applied")
    if result.verdict not in DECIDED:
        return (
            f"An automatic check of the field estimated by {name} (strength, smoothness, sharpening of the histogram, "
            "support by the image) accepted it; the acquired image was divided by the field, which was scaled to a "
            "mean of 1 over the mask, and was not resampled."
        )
    instead = f"; the image was corrected by {applied} instead" if applied not in (None, "none", name) else ""
    unchanged = "" if instead or result.verdict == NEGLIGIBLE else ", and the image was passed on unchanged"
    return f"An automatic check of the field estimated by {name} {DECIDED[result.verdict]}{unchanged}{instead}."


def _segmentation(result: Result, named) -> str:
    method, on = (result.part("segmentation").get(key) for key in ("method", "image"))
    if not method or method == "none":
        return ""
    where = f" on {on}" if on else ""
    return (
        f"Gray matter, white matter and CSF were segmented with {named(str(method))}{where}; the same segmentation "
        "scored the image before and after correction."
    )
