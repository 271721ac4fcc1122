"""Words that users choose by and that several modules know; nothing is imported for them."""

__all__ = ["NO_FALLBACK"]

#: Stands where a method to fall back on could be named.
NO_FALLBACK = "none"
