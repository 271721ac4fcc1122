"""Images on disk and in memory: NIfTI files, writing whole or not at all, grids, and the algebra of smooth fields."""
