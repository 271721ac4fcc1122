"""A worker as the recipe in CONTRIBUTING.md adds one: this folder, and one file where Pydra looks for it."""
