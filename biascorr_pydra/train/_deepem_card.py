"""What the card of deepem's weights says."""

PAPER = "biascorr_pydra's own method; related: Ashburner, Friston. Unified segmentation. NeuroImage 26(3), 2005."
FOLLOWS = [
    "unified segmentation's idea: tissue and field are found in turn, from prior probabilities of tissue",
]
FILLED = [
    "the prior probabilities come from a small U-Net instead of a registered atlas",
    "joint histograms of log intensity and its local mean instead of Gaussian mixtures",
    "a second network picks voxels purely of one tissue: with all voxels, partial volume is taken for field",
    "class means and control points are found together in closed form, with robust weights",
    "the first field is exact N4's, in the brain that the first network finds",
]
LIMITS = [
    "trained on simulated heads of adults, whole and stripped: no lesions, no regional variation within a tissue",
    "a field rougher than its 8 control points per axis cannot be expressed",
]
ADVICE = (
    "For heads of adults without a brain mask, T1w, T2w or FLAIR: it left less of every kind of simulated field than "
    "n4 did, and invented less where there was none. For anything else, n4."
)
