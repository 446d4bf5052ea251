"""The line of a folded section: a sentence, or its first clauses, never half a bracket."""

import pytest

from stillroom.report.gists import _short

LONG = "The sets hold the true class of 90.2 % of the images"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Short and whole. Another one.", "Short and whole"),
        (f"{LONG} (79.0 to 96.6 %)|, which agrees with what was promised on average beforehand", ""),
        (f"{LONG} too few images| (insertion minus deletion is 0.045, against 0.026 for others)", ""),
        (f"{LONG}: one (0 of 4 classes have ten)|; the other (1 of 4 classes has ten images)", ""),
        (f"{LONG}: no threshold is better than flagging all of them| and than flagging none", ""),
        ("word " * 23 + "word|" + " word" * 6, ""),
        ("x" * 120 + "|" + "x" * 10, ""),
    ],
)  # fmt: skip
def test_a_long_sentence_is_cut_where_it_may_be(text, line):
    assert _short(text.replace("|", "")) == (line or f"{text.split('|')[0]} …")
