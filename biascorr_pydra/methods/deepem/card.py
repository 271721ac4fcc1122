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
    "the first field is exact N4's, in the brain that the first network finds; far from the brain the shape of exact "
    "N4's field of the whole head guides the fit, at a hundredth of the weight",
]
DEVIATES = [
    "no registration, no Gaussian mixture, no probabilities of voxels of mixed tissue: what is mixed is left out",
]
LIMITS = [
    "trained on simulated heads of adults, whole and stripped: no lesions, no regional variation within a tissue",
    "a field rougher than its 8 control points per axis over the head cannot be expressed",
    "fetal heads are refused; round phantoms are taken for a brain; infants, contrast agents, tumours and atrophy were "
    "tried in simulation alone",
    "on real scans measured by pairs, which tell whether a field is followed, not whether one is invented, and by how "
    "even white matter of a registered atlas is in 13 scans",
]
ADVICE = (
    "For heads of adults, whole or stripped, T1w, T2w, FLAIR or PDw, with or without a brain mask: it left a tenth to "
    "a fifth of what n4 left of simulated fields in whole heads, and invented a tenth where there was none; in "
    "stripped ones two fifths to a half, and three fifths (up to a third, three quarters and nine tenths on another "
    "draw of heads); in pairs of real scans a third, in four whole T1w seven tenths. For anything else, n4."
)
