"""The faces of the package: command line, Pydra, Nipype."""
