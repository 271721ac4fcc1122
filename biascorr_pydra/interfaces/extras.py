"""Optional packages: the error that names the extra which brings one."""

from __future__ import annotations

from biascorr_pydra.errors import MissingDependencyError

__all__ = ["missing"]


def missing(needed_by: str, error: ImportError, extra: str) -> MissingDependencyError:
    """The error to raise where an optional import failed.

    Parameters
    ----------
    needed_by : str
        What needs the package, in the plural.
    error : ImportError
        What the import said.
    extra : str
        The extra of this package that brings it.
    """
    return MissingDependencyError(
        f"{needed_by} need a package that is not installed",
        value=f"{error.name or error}",
        next_step=f'Install it with: pip install "biascorr-pydra[{extra}]", or in a clone: '
        f'pip install -c constraints.txt ".[{extra}]".',
    )
