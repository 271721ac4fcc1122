"""The pages' own scripts, and the policy by which a browser runs them and no others, known by their hashes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

__all__ = ["NO_SCRIPTS", "RATINGS", "Scripts", "as_json", "scripts_of"]

RATINGS = Path(__file__).with_name("ratings.js")
#: What would end the script element, or a line, inside of it.
UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class Scripts:
    """A page's scripts, and the sources of scripts in its policy."""

    texts: Sequence[Markup]
    policy: Markup


NO_SCRIPTS = Scripts((), Markup("'none'"))


def scripts_of(*paths: Path) -> Scripts:
    """The scripts in these files."""
    # The browser hashes what it parsed, in which every line end is one line feed; so does read_text.
    texts = [path.read_text("utf-8") for path in paths]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    return Scripts([Markup(text) for text in texts], Markup(" ".join(f"'sha256-{value}'" for value in hashes)))


def as_json(content: Any) -> Markup:
    """JSON for a script element: no text in it can end the element or begin another."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character, escaped in UNSAFE.items():
        text = text.replace(character, escaped)
    return Markup(text)
