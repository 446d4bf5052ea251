"""How cells and names are written: what looks alike is alike, and what is missing is missing, in whatever form it comes."""

from __future__ import annotations

import re
import unicodedata

EMPTY = frozenset(("", "nan", "-nan", "null", "none", "<na>", "nat"))
"""Empty cells as programs write them, in lower case."""

_SAID = (
    *(
        "na",
        "n/a",
        "n.a.",
        "n.a",
        "#n/a",
        "#na",
        "n/d",
        "n.d.",
        "k.a.",
        "k. a.",
        "nil",
        "tbd",
        "unk",
        "unknown",
        "missing",
    ),
    *(
        "(blank)",
        "(null)",
        "(none)",
        "(empty)",
        "empty",
        "not available",
        "not applicable",
        "not known",
        "not recorded",
    ),
    *("not reported", "to be determined", "unbekannt", "inconnu", "desconocido"),
)
_MARKS = ("-", "--", "---", "\u2013", "\u2014", "?", "??", "???", ".", "..", "...", "\u2026", "/", "\\", "*", "_")
_FAULTS = ("#ref!", "#value!", "#name?", "#num!", "#div/0!", "#null!")
MISSING = EMPTY.union(_SAID, _MARKS, _FAULTS)
"""Cells that say nothing, in lower case: those of programs, of people, and of spreadsheets' broken formulas."""

PERHAPS_A_CLASS = frozenset(
    ("none", "missing", "unknown", "unk", "nil", "empty", "not known", "unbekannt", "inconnu", "desconocido", "nd")
)
"""Words that may be an honest class: a lesion of grade none, a type unknown. They are :data:`MISSING` elsewhere, but ``nd``:
initials, which would be lost to a column of patients."""

_UNSEEN = dict.fromkeys(
    (0x00AD, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A), 0xFEFF)
)
"""Characters without width that no word needs. Joiners are not among them: some scripts write by them."""


def tidy(text: str) -> str:
    """The text in Unicode's composed form (NFC), with plain single spaces, none at its ends and none without width."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_UNSEEN))
    return " ".join(text.split())


def look(text: str) -> str:
    """What a reader tells names apart by: equal for two that differ only in case, width, ligatures or unseen characters."""
    wide = unicodedata.normalize("NFKC", tidy(text)).casefold()
    return "".join(mark for mark in wide if unicodedata.category(mark) != "Cf")


def is_missing(cell: str) -> bool:
    """Whether a cell says nothing; see :data:`MISSING`."""
    return tidy(cell).lower() in MISSING


def filled(cell: str) -> str:
    """The cell, tidied; nothing where it is missing."""
    text = tidy(cell)
    return "" if text.lower() in MISSING else text


def plain_integer(text: str) -> str:
    """``12.0`` as ``12``, as programs write whole numbers where their column has gaps; any other text as it is."""
    return text.split(".")[0] if re.fullmatch(r"[+-]?[0-9]+\.0+", text) else text
