"""What the licence of published weights means for whoever sells what is made with them. No legal advice: a first reading."""

from __future__ import annotations

_FREE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "unlicense")
_NOT_COMMERCIAL = ("-nc", "noncommercial", "non-commercial", "research-only", "research only", "amlr", "academic")


def forbids_commercial_use(licence: str | None) -> bool | None:
    """True or False where the licence's name says it; None for one that has to be read, and where none is stated.

    >>> [forbids_commercial_use(name) for name in ("cc-by-nc-nd-4.0", "MIT", "dinov3-license", None)]
    [True, False, None, None]
    """
    name = (licence or "").lower()
    if any(part in name for part in _NOT_COMMERCIAL):
        return True
    return False if name in _FREE else None
