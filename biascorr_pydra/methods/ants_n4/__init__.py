"""ANTs' own N4, through antspyx."""
