"""deepem: networks name tissue, a closed-form fit makes it even."""
