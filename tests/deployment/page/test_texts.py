"""The page's words: every language says the same things, with the same places to fill."""

import json
import re
from pathlib import Path

import pytest

import stillroom

PAGE = Path(stillroom.__file__).parent / "deployment" / "page"
TABLES = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted((PAGE / "texts").glob("*.json"))}
OTHERS = sorted(TABLES.keys() - {"en"})


def places(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def test_there_are_languages_to_compare():
    assert OTHERS
    assert len(TABLES["en"]) > 100


@pytest.mark.parametrize("language", OTHERS)
def test_a_language_has_the_keys_of_english_in_their_order(language):
    assert list(TABLES[language]) == list(TABLES["en"])


@pytest.mark.parametrize("language", OTHERS)
def test_a_text_has_the_places_of_the_english_one(language):
    for key, text in TABLES[language].items():
        assert places(text) == places(TABLES["en"][key]), key


@pytest.mark.parametrize("language", OTHERS)
def test_a_text_was_translated(language):
    same = {key for key, text in TABLES[language].items() if text == TABLES["en"][key]}
    assert same <= {"live.answer"}


@pytest.mark.parametrize("language", TABLES)
def test_no_text_is_empty(language):
    assert all(text.strip() for text in TABLES[language].values())
