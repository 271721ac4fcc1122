"""Faces of the package for workflow engines: types converted, nothing more."""
