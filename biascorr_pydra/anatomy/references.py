"""Whom to cite for the steps that find brain and tissue."""

from __future__ import annotations

from biascorr_pydra.methods.reference import Reference

__all__ = ["REFERENCES"]

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

#: By method of brain extraction or segmentation; DeepNormalize's segmenter is cited as the correction method is.
REFERENCES: dict[str, tuple[Reference, ...]] = {
    "deepbet": (DEEPBET,),
    "template": (ANTS, FONOV),
    "atropos": (ATROPOS,),
}
