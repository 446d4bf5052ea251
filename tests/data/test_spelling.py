"""What is alike on the screen is alike, and what is missing is missing however it is written."""

import unicodedata

import pytest

from stillroom.data.spelling import EMPTY, MISSING, PERHAPS_A_CLASS, filled, is_missing, look, plain_integer, tidy

COMPOSED, APART = "M\u00e9ni\u00e8re", "Me\u0301nie\u0300re"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (APART, COMPOSED),
        ("very\u00a0ill", "very ill"),
        ("very\u202f\u2009ill", "very ill"),
        ("\ufeffvery ill\u200b", "very ill"),
        ("very\u200b ill \u200e", "very ill"),
        ("e\u200b\u0301", "\u00e9"),
        ("  very\t\n ill ", "very ill"),
        ("co\u00adop", "coop"),
        ("plain", "plain"),
    ],
)
def test_tidy(written, meant):
    assert tidy(written) == meant
    assert tidy(meant) == meant
    assert unicodedata.is_normalized("NFC", tidy(written))


def test_what_words_need_is_kept():
    for text in ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "grade\u00b2", "\ufb01ne", "Grün", "BI-RADS 4a"):
        assert tidy(text) == text


@pytest.mark.parametrize("twin", ["GRADE 2", "grade \u00b2", "\uff47rade 2", "grade\u200d 2", "grade\u00a02"])
def test_look_is_what_a_reader_goes_by(twin):
    assert look(twin) == look("grade 2")
    assert look("grade 3") != look("grade 2")


@pytest.mark.parametrize(
    "cell",
    [
        "",
        " ",
        "nan",
        "NaN",
        "NA",
        "n/a",
        "<NA>",
        "None",
        "NULL",
        "-",
        "?",
        " \u00a0",
        "\u200b",
        "#N/A",
        "(blank)",
        "n/d",
        "TBD",
        "Unbekannt",
        "N.A.",
        "k.A.",
        "unk",
        "nil",
    ],
)
def test_missing_however_it_is_written(cell):
    assert is_missing(cell)
    assert filled(cell) == ""


@pytest.mark.parametrize("cell", ["0", "-1", "no", "normal", "nano", "N", "false", "P-1", "none seen"])
def test_what_says_something_is_not_missing(cell):
    assert not is_missing(f" {cell} ")
    assert filled(f" {cell} ") == cell


def test_pandas_agrees_on_what_is_missing():
    from pandas._libs.parsers import STR_NA_VALUES  # what read_csv takes for missing

    numbers = {name for name in STR_NA_VALUES if "1.#" in name or " " in name}  # of an old C library
    assert {name.lower() for name in STR_NA_VALUES - numbers} <= MISSING
    assert EMPTY < MISSING
    assert PERHAPS_A_CLASS - {"nd"} < MISSING
    assert not is_missing("ND")  # initials of a patient; in a column of labels it is doubted


@pytest.mark.parametrize(
    ("text", "meant"),
    [("12.0", "12"), ("-3.00", "-3"), ("12", "12"), ("1.5", "1.5"), ("P1.0", "P1.0"), ("1.2.0", "1.2.0")],
)
def test_whole_numbers_of_a_column_with_gaps(text, meant):
    assert plain_integer(text) == meant
