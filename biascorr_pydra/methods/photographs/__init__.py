"""What the two correctors that are trained on photographs share; no method by itself."""
