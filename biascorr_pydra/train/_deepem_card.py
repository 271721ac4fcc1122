"""What the card of deepem's weights says."""

PAPER = "biascorr_pydra's own method; related: Ashburner, Friston. Unified segmentation. NeuroImage 26(3), 2005."
FOLLOWS = [
    "unified segmentation's idea: tissue and field are found in turn, from prior probabilities of tissue",
]
FILLED = [
    "the prior probabilities come from a small U-Net instead of a registered atlas",
    "joint histograms of log intensity and its local mean instead of Gaussian mixtures",
    "a second network says how surely a voxel is purely of one tissue, that is, within 4% of the tissue's own "
    "intensity but for noise and field: with all voxels, partial volume is taken for field",
    "means of four tiers of sureness per class and control points are found together in closed form, with robust "
    "weights; the last round's step is prolonged by 0.3",
    "the first field is exact N4's, in the brain that the first network finds",
]
DEVIATES = [
    "no registration, no Gaussian mixture, no probabilities of voxels of mixed tissue: what is mixed is left out",
]
LIMITS = [
    "trained on simulated heads of adults, whole and stripped: no lesions, no regional variation within a tissue",
    "a field rougher than its 8 control points per axis cannot be expressed; of very strong ones (sd of the log "
    "0.4 and more, rough, as at 7 T) n4 left less",
    "where white and gray matter have one intensity (infants of 6 months) n4 left less; fetal heads are refused",
    "hardly a voxel of the cortex is pure: at the edge of the brain the field is extrapolated",
]
ADVICE = (
    "For heads of adults without a brain mask, T1w, T2w, FLAIR or PDw: in whole ones it left a third or two fifths of "
    "what n4 left of simulated fields, and invented a third where there was none; in stripped ones two thirds, and as "
    "much. With a good brain mask n4 followed fields in real clinical scans more closely. For anything else, n4."
)
