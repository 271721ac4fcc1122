"""One image between files: its correction, and the page that shows it; above both, which do not know each other."""

from .correct import correct_file, rejected_file_beside

__all__ = ["correct_file", "rejected_file_beside"]
