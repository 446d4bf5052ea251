"""How settings become flags."""

from __future__ import annotations

import re

from cyclopts import Parameter


def section(name: str, only: re.Pattern[str] | None = None) -> Parameter:
    """The fields of a dataclass of settings as flags of their own, under this heading.

    Args:
        name: the heading in the help.
        only: a pattern that the names of those fields match which become flags. Default: all.
    """
    return Parameter(
        name="*",
        group=name,
        parse=only,
        consume_multiple=(1, None),
        negative_iterable="",
        show_default=lambda value: None if value in ((), "") else value,
    )
