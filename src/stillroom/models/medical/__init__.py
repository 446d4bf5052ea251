"""Foundation models of medical images that can teach, as `stillroom models --medical` lists them.

Importing this module imports neither torch nor timm, so that the list, help and completion stay quick.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from stillroom.errors import UsageError, nearest
from stillroom.models.medical.entry import NOT_VERIFIED, MedicalTeacher
from stillroom.models.medical.histology import HISTOLOGY
from stillroom.models.medical.others import OTHERS

__all__ = ["MEDICAL", "NOT_VERIFIED", "MedicalTeacher", "medical", "search"]

MEDICAL = (*HISTOLOGY, *OTHERS)
"""The catalogue, by field."""


def medical(name: str) -> MedicalTeacher | None:
    """The entry of that name; None where there is none."""
    return next((entry for entry in MEDICAL if entry.name == name), None)


def search(pattern: str) -> list[MedicalTeacher]:
    """Entries whose name, field or licence matches a glob such as ``*histology*``, whatever its case.

    Raises:
        UsageError: there is none.
    """
    glob = pattern.lower()
    found = [
        entry
        for entry in MEDICAL
        if any(fnmatchcase(text.lower(), glob) for text in (entry.name, entry.domain, entry.licence))
    ]
    if not found:
        known = [entry.name for entry in MEDICAL]
        raise UsageError(f"No medical teacher is called {pattern!r}.{nearest(pattern.strip('*'), known)}")
    return found
