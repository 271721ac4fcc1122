"""What the card of UBC's weights says of the paper: what is followed, what was filled in, what deviates and why."""

from __future__ import annotations

PAPER = "Perez-Caballero et al. Unsupervised Deep Learning Method for MRI Bias Correction. MIDL short papers, 2024."

FOLLOWS = [
    "input of 100 x 100 x 100 samples divided by its mean",
    "four 3 x 3 x 3 convolutions of 16, 32, 64 and 128 filters, ReLU, batch normalization, stride 2",
    "7 x 7 x 7 positive control points of the inverse field, up-sampled and multiplied in",
    "loss 2 H(Y) + 1 H(grad Y) + 1 mean|grad B| + 1 |difference of standard deviations|, output mean forced to 1",
    "entropy of a histogram of 200 bins with a Gaussian kernel of standard deviation 1, taken as 1 bin",
    "unsupervised: the loss never sees the simulated field",
    "Adam; random flips along the three axes",
]

FILLED = [
    "positive control points by exp; the log field is the cubic B-spline of the log control points",
    "the last convolution begins at zero, so that the first field is 1; order: convolution, ReLU, normalization",
    "|grad B| is per tenth of the image's extent, of the inverse field scaled as the output's mean demands",
    "histogram range, learning rate, schedule and batch: see 'training'",
]

DEVIATES = [
    "H is taken of log Y and of log(|grad Y| + 0.02), over voxels brighter than the image's mean, and so are mean and "
    "standard deviation. Why: minimized directly over the control points on simulated heads, entropies of "
    "linear intensity over the whole volume made every field worse (residual CoV 0 -> 0.35, 0.11 -> 0.25 on T1w), the "
    "collapse that the paper's introduction describes, in spite of its other terms; log intensity is the remedy that "
    "it cites (SPM2)",
    "trained on heads simulated from 16 label maps instead of 914 scans of OASIS and IXI",
    "one network for T1w, T2w, FLAIR and random contrasts instead of one for each contrast",
    "the histogram shares each voxel between two bins and is then convolved, instead of a sum of kernels; float32",
]

LIMITS = [
    "trained on simulated heads only: no lesions, no regional variation within a tissue, no real noise or artefacts",
    "brains of adults, whole heads and stripped ones; other anatomy was never seen",
    "a field rougher than 7 x 7 x 7 control points over the image cannot be expressed",
]
