"""Terms in running text as buttons that say what they mean."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

    from stillroom.report.terms import Term


def explained(found: list[Term], text: object) -> Markup:
    """``text`` for HTML, in which every term, where it comes first, is a button that says what it means.

    It opens a text by mouse, touch and keyboard without a script, and shows it where a mouse rests on it.
    """
    from markupsafe import Markup, escape

    by_name = {name: term for term in found for name in term.names}
    button = Markup('<button type="button" class="term" popovertarget="term-{}" title="{}">{}</button>')
    shown, end, told, said = str(text), 0, set(), Markup("")
    for match in _pattern(tuple(sorted(by_name, key=len, reverse=True))).finditer(shown) if by_name else ():
        term = by_name[match[0].lower()]
        if term.key not in told:
            told.add(term.key)
            said += escape(shown[end : match.start()]) + button.format(term.key, term.text, match[0])
            end = match.end()
    return said + escape(shown[end:])


def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, names))})(?![\w-])", re.IGNORECASE)
