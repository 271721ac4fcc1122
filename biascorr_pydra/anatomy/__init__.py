"""Where the brain is, and which tissue a voxel holds."""
