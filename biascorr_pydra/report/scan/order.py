"""What one scan's page is made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from biascorr_pydra import __version__
from biascorr_pydra.report.collect import Result
from biascorr_pydra.report.ratings import Rating

from .ranges import Place

__all__ = ["PageOrder"]


@dataclass(frozen=True)
class PageOrder:
    """All that one page is made from: one scan's results, and where it stands in the cohort."""

    out_dir: Path
    cohort: str
    scan: str
    results: list[Result]
    places: dict[str, dict[str, dict[str, Place]]]
    links: dict[str, tuple[str, str]]  # "previous", "next" and "cohort": address and title
    store: str = ""  # by what the browser knows the cohort's ratings; without one nothing is rated
    rating: Rating = field(default_factory=Rating)

    def digest(self, template: str) -> str:
        """A hash of the page's words under a template of this hash; the pictures have a key of their own."""
        results = [[r.method, r.state, r.reason, r.record, r.sidecar, sorted(r.files)] for r in self.results]
        judged = [self.results[0].judged.reason, self.results[0].judged.record] if self.results else []
        places = {
            method: {part: {key: asdict(place) for key, place in by_key.items()} for part, by_key in parts.items()}
            for method, parts in self.places.items()
        }
        words = [
            template,
            __version__,
            self.cohort,
            self.scan,
            results,
            judged,
            places,
            self.links,
            self.store,
            asdict(self.rating),
        ]
        return hashlib.sha256(json.dumps(words, sort_keys=True, default=str).encode()).hexdigest()
