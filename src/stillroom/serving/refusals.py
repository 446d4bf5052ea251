"""What a server does not do, as an exception with the words and the status that its asker is told."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: of HTTP.
        text: what was wrong and what to do, for people; names no file and nothing that a request held
            but its parameters.
        reason: the same in a word, for counts and logs.
        headers: further ones of the response, in lower case.
    """

    def __init__(self, status: int, text: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.reason, self.headers = status, text, reason, dict(headers or {})
