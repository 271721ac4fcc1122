"""ITK's N4, written again."""
