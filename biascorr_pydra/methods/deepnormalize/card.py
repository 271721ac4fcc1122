"""What the card of DeepNormalize's weights says in words."""

PAPER = "Delisle et al. Realistic image normalization for multi-domain segmentation. Medical Image Analysis, 2022."
FOLLOWS = (
    "generator and segmenter: the 3-D U-Net with up-sampling and concatenation, batch normalization and ReLU "
    "after each convolution, 1 x 1 x 1 convolution and softmax over BG, CSF, GM, WM",
    "discriminator: K + 1 classes, four convolutions of DCGAN's with LeakyReLU and dropout, and a linear layer",
    "weighted Dice loss (BG .22, CSF .30, GM .20, WM .28, as the paper's text has them); cross entropy of K + 1 "
    "classes",
    "algorithm 1: the discriminator is updated three times on new batches for each update of segmenter and "
    "generator, and the generator minimizes Dice loss - lambda x cross entropy of the generated class (equation "
    "3)",
    "patches of 32 x 32 x 32 samples of 1 mm of stripped brains, centred on a voxel of a tissue, as many of each site",
    "half of what goes into the generator has a linear field along y, (y / H) alpha + (1 - alpha), alpha uniform "
    "from 0 to 1 (equation 7); what the discriminator is shown as real has none",
    "whole images: patches every 8 mm, averaged at each voxel",
    "Adam with weight decay 1e-3; generator and segmenter start at 1e-3",
    "baselines: Standardization (model=standardization), Pre-processor (adversarial_weight=0)",
)
FILLED = (
    "input: intensities divided so that their 99th percentile in the brain is 0.8; 0 outside the brain",
    "the generator ends in a sigmoid, as in the paper's public code, and its output is 0 where the input is 0",
    "warm-up of the generator by the squared difference to its input, as in the public code; the segmenter learns"
    " meanwhile on its output",
    "equation 7's field is a function of the place in the whole brain, and the image is scaled again after it; "
    "the paper's words (-100% to +100%) contradict its formula, which stands",
    "the discriminator's filters, their size (4) and its dropout (.25)",
    "while the generator learns, the discriminator is in evaluation mode",
)
DEVIATES = (
    "the discriminator has a centred input and, as DCGAN's but not as the paper's sentence, batch normalization "
    "after all but its first convolution. Why: without them it stayed at chance between three sites' real patches"
    " for as long as we looked (240 updates, at 1e-4, 5e-4 and 1e-3)",
    "patches are drawn anew at each step, not 40,000 a data set once; they are randomly mirrored, and their axes "
    "permuted, so that the order of an image's axes does not matter",
    "steps, not epochs: the discriminator's learning rate falls to a tenth at 62% of the run instead of on a "
    "plateau of the validation loss; schedule=cosine takes all rates down to 0 instead",
)
LIMITS = (
    "one channel of T1-weighted contrast, stripped brains of adults; a mask with skull or scalp in it is outside "
    "of what was seen, and so are lesions",
    "normalized intensities are those of no scanner: do not read contrast between tissues, or volumes, from them",
    "each patch is seen by itself, so that a field that is smooth over much more than 32 mm shows only in "
    "absolute brightness",
)
ADVICE = "Not for work that matters: use n4 to correct a bias field, atropos to segment."
