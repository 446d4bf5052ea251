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


def test_every_text_is_used_and_every_use_has_a_text():
    """Keys are written out wherever they are used; those of `sayCount` have two texts."""
    code = "".join(file.read_text("utf-8") for kind in ("js", "html", "py") for file in PAGE.rglob(f"*.{kind}"))
    named = set(re.findall(r"""["'`]((?:[a-z_]+)\.(?:[a-z_]+)(?:\.one|\.other)?)["'`]""", code))
    begun = set(re.findall(r"`([a-z_]+\.[a-z_]*)\$\{", code))
    counted = {key.rpartition(".")[0] for key in TABLES["en"] if key.endswith((".one", ".other"))}
    refused = {f"refused.{key}" for key in re.findall(r"Refused\(\s*\"([a-z_0-9]+)\"", code)}
    used = named | refused | {f"{key}.{end}" for key in named & counted for end in ("one", "other")}
    unused = {key for key in TABLES["en"] if key not in used and not any(key.startswith(start) for start in begun)}
    assert unused == set()
    sections = {key.partition(".")[0] for key in TABLES["en"]}
    named = {key for key in named if not key.endswith((".js", ".html", ".css"))}
    missing = {key for key in named | refused if key.partition(".")[0] in sections} - set(TABLES["en"]) - counted
    assert missing == set()
