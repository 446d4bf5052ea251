"""Names and counts as they may be shown: nothing in a name can steer a terminal or break a line."""

from __future__ import annotations

import re

# Controls, among them line ends and what begins an escape code, and characters that turn or end a line of writing.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def shown(text: object) -> str:
    r"""A text with every control character spelled out, such as ``\x1b`` or ``\n``; of one line, whatever it was."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def shown_in_lines(text: str) -> str:
    r"""A page of text with the controls that names may hold spelled out as :func:`shown` does. Its own line ends stay."""
    return _STEERING.sub(lambda found: found[0] if found[0] == "\n" else shown(found[0]), text)


def shown_as_json(text: str) -> str:
    r"""JSON with the controls that its texts may hold spelled ``\u009b``: the same values. Line ends between them stay."""
    return _STEERING.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 patient`` or ``1,200 patients``; ``many`` where it is not ``one`` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
