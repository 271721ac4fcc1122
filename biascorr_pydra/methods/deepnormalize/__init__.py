"""DeepNormalize (Delisle 2022): learned, adversarial normalization of several sites."""
