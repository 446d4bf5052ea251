"""Terms: each says what itself is, where it is pointed at and in the glossary."""

import pytest

from stillroom.report import terms as table
from stillroom.report.term_buttons import explained


def test_each_name_is_one_terms_and_each_term_opens_its_own_text():
    names = [name for term in table._TERMS for name in term.names]
    assert len(names) == len(set(names))
    assert len({term.key for term in table._TERMS}) == len(table._TERMS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Sensitivity", "Specificity"), ("Precision", "F1"), ("Calibration error", "ECE"), ("PPV", "NPV"),
        ("Accuracy", "Balanced accuracy"), ("Brier score", "Log loss"), ("Insertion", "Deletion"), ("BE", "rBE"),
    ],
)  # fmt: skip
def test_two_figures_are_told_of_apart(one, other):
    said = str(explained(list(table._TERMS), f"{one}, {other}"))
    titles = [part.split('"')[0] for part in said.split('title="')[1:]]
    assert len(titles) == 2
    assert titles[0] != titles[1]
    assert "; its" not in titles[0] + titles[1]
    assert said.count('popovertarget="term-') == 2
