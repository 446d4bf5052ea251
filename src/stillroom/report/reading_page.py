"""The page on which readers read images: one file that opens offline, loads nothing and sends nothing."""

from __future__ import annotations

import json
from typing import Any

from stillroom.explanation.claims import FAITHFUL, NOT_FAITHFUL, NOT_SHOWN, Verdict
from stillroom.report.templating import TEMPLATES, environment, scripted

MAPS: dict[Verdict | None, str] = {
    FAITHFUL: (
        "On test images such maps were found faithful: they show what the model uses, which need not be the right reason."
    ),
    NOT_FAITHFUL: "On test images such maps were found not faithful: do not take them for what the model uses.",
    NOT_SHOWN: f"Whether such maps are faithful was {NOT_SHOWN}. Do not take them for what the model uses.",
    None: "Whether such maps show what the model uses is not known.",
}
"""What readers are told of heat maps, by their verdict."""


def reading_page(study: dict[str, Any], *, title: str, verdict: Verdict | None, synthetic: bool) -> str:
    """The page as HTML.

    Args:
        study: ``study`` (its id), ``design``, ``options``, ``finding`` and ``images``, each with ``image`` (its number),
            ``half``, ``picture``, ``width``, ``height`` and ``help`` (None where the model refuses).
        title: what the images are, in a line.
        verdict: on the heat maps; None where they were not tested.
        synthetic: whether the images are phantoms.
    """
    data = json.dumps(study, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return (
        environment()
        .get_template("reading_page.html.j2")
        .render(
            {
                "css": "".join(
                    (TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "reading_page.css")
                ),
                **scripted("reading_page.js"),
                "data": data,
                "study": study,
                "count": len(study["images"]),
                "title": title,
                "maps": MAPS[verdict],
                "synthetic": synthetic,
            }
        )
    )
