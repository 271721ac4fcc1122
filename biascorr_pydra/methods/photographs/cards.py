"""What the cards of the two implicitly trained correctors say of the papers."""

from __future__ import annotations

from biascorr_pydra.training.base import CardText

__all__ = ["GETNET", "IMPLICIT"]

_SHARED_FILLED = (
    "input: a photograph's grey values, 0 to 1; a slice divided by its foreground's 99th percentile and cut off at 1",
    "3-D scans: 32 slices along each axis over the head's extent, log gains fitted by one cubic B-spline and one "
    "offset a slice (weighted least squares); from the second pass on, of the scan corrected so far",
    "learning rate, batch, schedule: see 'training'",
)
_SHARED_DEVIATES = (
    "the network also sees the logarithm of the slice, and its output is added to the slice's own log intensity, "
    "smoothed. Why: trained alike for 3 minutes it answered to a field on photographs with slope 0.93, without this "
    "0.87",
    "'economy': the field found in a photograph without any multiplied in is kept small. Why: the implicit loss "
    "constrains how the field changes and not the field itself; smoothed log intensity (a homomorphic filter), which "
    "takes anatomy for a field, minimizes it too, idempotence included",
    "200 photographs of BSDS500 instead of 108,000 of ImageNet",
    "photographs are changed at random: intensities by a power or to 3 to 6 classes, cut-outs before a dark "
    "background with rims, noise of each image's own; losses count where there is no background",
)
_SHARED_LIMITS = (
    "behind N4 where N4 works: part of the anatomy is taken for a field (see the scores 'invented', and the tables of "
    "benchmarks/papers_getnet.py)",
    "stripped brains: more is invented, and the answer to a field is weaker, than on whole heads",
    "trained on 200 photographs for about an hour of one CPU core at most, not for days",
    "two passes by default, for an answer of the right strength; preset 'once' invents less (chosen so on two label "
    "maps of simulated heads, 1 and 9, neither trained on nor among those scored)",
    "each slice is seen alone: contrast between slices counts only through the B-spline",
    "the photographs' licence is for non-commercial research and education; what that means for weights trained on "
    "them is for the user to judge",
)

GETNET = CardText(
    paper="Simko, Lofstedt, Garpebring, Nyholm, Jonsson. A generalized network for MRI intensity normalization "
    "(GetNet). arXiv:1909.05484, 2019.",
    follows=(
        "implicit training, Equation 3: mean absolute error between k and G(v k) / G(v)",
        "256 x 256 crops of photographs, no medical image; 16 x 16 output of a modified ResNet, up-sampled",
        "one network; a field of at most 30% inhomogeneity is multiplied into every photograph",
    ),
    filled=(
        "the generator: random cubic B-splines of 1 to 3 spans, from 1 - a to 1 + a, a from 0.03 to 0.3",
        "the ResNet: 5 residual blocks of 32, 48 and 64 channels after a 5 x 5 convolution of stride 4, those at 16 x "
        "16 dilated; batch normalization and ReLU; 270,000 parameters; the output is the log gain",
        *_SHARED_FILLED,
    ),
    deviates=_SHARED_DEVIATES,
    limits=_SHARED_LIMITS,
    advice="Choose n4 instead: it is faster and leaves less on simulated heads; getnet is for comparison with the "
    "paper, and as a second opinion that assumes nothing of tissues.",
)

IMPLICIT = CardText(
    paper="Simko, Lofstedt, Garpebring, Nyholm, Jonsson. MRI bias field correction with an implicitly trained CNN. "
    "MIDL, 2022.",
    follows=(
        "implicit training: mean squared error between k and G(v k) / G(v), each divided by its mean",
        "two idempotence terms, of v and of v k: the field of a corrected image is constant",
        "the public code's fields: a Gaussian random field of length (size / 10) / U(0.5, 2) on a grid of size / 10, "
        "up-sampled by DCT, from 1 - r/2 to 1 + r/2, r from 0.10 to 0.50",
        "residual blocks of 12, 24, 32, 48, 64 and 64 channels with stride 2 to 4 x 4; output 4 x 4 DCT coefficients; "
        "gain kept between 0.5 and 2; about as many parameters",
    ),
    filled=("the weight of the idempotence terms: 0.1", *_SHARED_FILLED),
    deviates=(
        "nonlinearities (ReLU) in every block: the published weights lack them, and answered to a field with slope "
        "0.003",
        "the coefficients come from a linear layer over all places, as a 1 x 1 convolution ties each to one corner of "
        "the slice; they are the log gain's; the stem has stride 4, the last two blocks none",
        *_SHARED_DEVIATES,
    ),
    limits=("4 x 4 cosines a slice: fields rougher than that are not found", *_SHARED_LIMITS),
    advice="Choose n4 instead: implicit is here to compare with the paper; its slices are smooth, but on simulated "
    "heads it was behind a low-pass of log intensity.",
)
