"""What the card of DeepNormalize's weights says in words."""

PAPER = "Delisle et al. Realistic image normalization for multi-domain segmentation. Medical Image Analysis, 2022."
FOLLOWS = ()
FILLED = ()
DEVIATES = ()
LIMITS = ()
ADVICE = ""
