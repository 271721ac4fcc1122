"""What the card of UBC's weights says of the paper: what is followed, what was filled in, what deviates and why."""

from __future__ import annotations

PAPER = "Perez-Caballero et al. Unsupervised Deep Learning Method for MRI Bias Correction. MIDL short papers, 2024."

FOLLOWS = [
    "input of 100 x 100 x 100 samples divided by its mean",
    "four 3 x 3 x 3 convolutions of 16, 32, 64 and 128 filters, ReLU, batch normalization, stride 2",
    "a lattice of 7 x 7 x 7 (or 3 to 11) positive control points of the inverse field, up-sampled and multiplied in",
    "loss 2 H(Y) + 1 H(grad Y) + 1 mean|grad B| + 1 |difference of standard deviations|, output mean forced to 1",
    "entropy of a histogram of 200 bins with a Gaussian kernel of standard deviation 1, taken as 1 bin",
    "unsupervised: the loss never sees the simulated field",
    "Adam, mixed precision; random flips along the three axes",
    "at test: fields of the image and of its three mirror images averaged (TTDA); training steps on the image (TTT)",
]

FILLED = [
    "positive control points by exp; the log field is the cubic B-spline of the log control points",
    "from the encoder's features to the lattice: linear interpolation to where the control points lie, a 3 x 3 x 3 "
    "convolution to 32 filters plus a linear map of the features' mean over the image, leaky ReLU (0.1), a 1 x 1 x 1 "
    "convolution that begins at zero, so that the first field is 1; a lattice of 3 is a parabola along each axis",
    "order in the encoder: convolution, ReLU, normalization",
    "|grad B| is per tenth of the image's extent, of the inverse field scaled as the output's mean demands",
    "histogram range (log Y from -2.5 to 1.5, log(|grad Y| + 0.02) from -4 to 1), learning rate, schedule and batch",
    "the weight of |grad B| grows from 0 over the first 'warm_up' steps: it has a kink at no field at all, to which a "
    "network under its double weight fell back after 350 steps, and which it never left",
    "batch normalization's statistics stand still after 'still_after' steps: batches of 2 say little of them, and a "
    "correction has only one image; gradients are clipped to a norm of 1",
    "TTDA averages log fields, the image itself included; TTT is by default 20 steps of Adam at 3e-4 on random mirror "
    "images, with batch normalization's statistics held, and is not used where it does not lower the loss",
]

DEVIATES = [
    "H is taken of log Y and of log(|grad Y| + 0.02), over voxels brighter than the image's mean, and so are mean and "
    "standard deviation. Why: minimized directly over the control points on simulated heads, entropies of "
    "linear intensity over the whole volume made every field worse (residual CoV 0 -> 0.35, 0.11 -> 0.25 on T1w), the "
    "collapse that the paper's introduction describes, in spite of its other terms; log intensity is the remedy that "
    "it cites (SPM2)",
    "trained on simulated heads or on what images there are, instead of 914 scans of OASIS and IXI",
    "one network for T1w, T2w, FLAIR and random contrasts instead of one for each contrast",
    "the histogram shares each voxel between two bins and is then convolved, instead of a sum of kernels",
]

LIMITS = [
    "where trained on simulated heads: no lesions, no regional variation within a tissue, no real noise or artefacts "
    "were seen, and no other anatomy than adults' heads, whole and stripped",
    "a field rougher than its control points cannot be expressed",
    "the loss has its minimum beside the truth: minimized directly over the control points (no network), it leaves a "
    "residual CoV of .042 where there is no field, .049 of .096 (smooth) and .056 of .098 (rough) in simulated whole "
    "heads, and .029, .035 of .114 and .040 of .131 in stripped ones. In whole heads it evens out fat and brain",
]

ADVICE = (
    "For a whole T2w or FLAIR head without a brain mask it left less of simulated fields than N4 did; for a T1w, and "
    "wherever there is a brain mask or a stripped image, use n4: on whole T1w heads the network alone adds more than "
    "it removes, which preset ttda-ttt undoes in part."
)
