"""Names as a terminal may be shown them."""

from __future__ import annotations

import json
import unicodedata

from stillroom.shown import counted, shown, shown_as_json, shown_in_lines

NASTY = "".join(
    map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)


def test_nothing_of_unicodes_controls_is_left_and_everything_else_is() -> None:
    assert not {unicodedata.category(letter) for letter in shown(NASTY)} & {"Cc", "Zl", "Zp", "Cf"}
    assert shown("\x1b[31m\n\x9b\u202e") == r"\x1b[31m\n\x9b\u202e"
    plain = "ä 図 [red] :skull: \\ \U0001f600 \u200d"
    assert shown(plain) == plain


def test_a_page_keeps_its_lines() -> None:
    assert shown_in_lines("a\x1b[1m\n\x07b\r\n") == "a\\x1b[1m\n\\x07b\\r\n"


def test_json_keeps_its_values_and_its_lines() -> None:
    content = {NASTY: [NASTY, "ä"]}
    written = shown_as_json(json.dumps(content, indent=1, ensure_ascii=False))
    assert json.loads(written) == content
    assert written.count("\n") == 5
    assert not {unicodedata.category(letter) for letter in written.replace("\n", "")} & {"Cc", "Zl", "Zp", "Cf"}


def test_of_one_thing_nothing_is_said_in_the_plural():
    assert [counted(number, "image") for number in (0, 1, 2, 1200)] == [
        "0 images",
        "1 image",
        "2 images",
        "1,200 images",
    ]
    assert [counted(number, "study", "studies") for number in (1, 2)] == ["1 study", "2 studies"]
