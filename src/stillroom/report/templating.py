"""The Jinja environment that the page and the model card share."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.explanation.overlay import LEGEND
from stillroom.report.numbers import Estimate, count, duration, fixed, plain
from stillroom.report.term_buttons import explained
from stillroom.report.wording import audit_total

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
_SEAMS = re.compile(r"(?<=[_/-])(?=\w)|(?<=[a-z]\.)(?=[a-z_]{6})|(?<=[a-zß-ÿ]{2})(?=[A-ZÀ-Þ][a-zß-ÿ])")
_FLAG = re.compile(r"(?<!\w)--\w[\w-]*")
OUR_ROWS = ("Figure", "Map", "Network", "Network and map", "Own maps", "Sets on test images")
"""First columns of tables whose rows we name: in others a row's name comes from the data, and is no term of ours."""


@cache
def environment(**filters: Callable[..., str]) -> Environment:
    """Templates of this package with ``filters`` besides the usual ones; the same filters share what was compiled.

    HTML is escaped; a name that a template uses and nobody gave is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context

    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"count": count, "fixed": fixed, "plain": plain, "duration": duration, "when": when}
    jinja.filters["total"] = audit_total
    jinja.filters |= {"breakable": breakable, "flags": flags}
    jinja.filters["explained"] = pass_context(_explained)
    jinja.filters |= filters
    jinja.globals |= {"heat_legend": LEGEND, "ours": OUR_ROWS}
    jinja.tests["estimate"] = lambda value: isinstance(value, Estimate)
    return jinja


def _explained(context: Mapping[str, Any], text: object, within: tuple[str, ...] | None = None) -> Markup:
    """A heading of ours as :func:`~stillroom.report.terms.explained` has it; ``within`` names the only terms looked for."""
    known = [term for term in context["terms"] if within is None or term.key in within]
    return explained(known, text)


def scripted(name: str) -> dict[str, str]:
    """A script of this package, as ``script``, and what lets a page's policy run it and nothing else, ``script_digest``."""
    script = (TEMPLATES / name).read_text(encoding="utf-8")
    return {"script": script, "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}


def breakable(name: object) -> Markup:
    """A name that may break where it was put together, and nowhere else: ``left_lung``, ``left-lung``, ``leftLung``.

    So may ``test/left`` and ``student.pretrained``, but no name of a file before its ending.
    """
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in _SEAMS.split(str(name)))


def flags(text: object) -> Markup:
    """A sentence for HTML, in which a command's flags, such as ``--folds``, never break."""
    from markupsafe import Markup, escape

    return Markup(_FLAG.sub(r'<span class="flag">\g<0></span>', str(escape(text))))


def when(stamp: Any) -> str:
    """An ISO time as ``21 November 2026, 03:38``; anything else as it stands."""
    try:
        return f"{datetime.fromisoformat(str(stamp)):%-d %B %Y, %H:%M}"
    except ValueError:
        return plain(stamp)
