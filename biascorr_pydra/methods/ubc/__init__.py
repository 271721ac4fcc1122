"""UBC (Perez-Caballero 2024): an unsupervised network trained by entropy."""
