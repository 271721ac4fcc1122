"""The correction of one image: options, estimate, verdict, division, record."""
