"""What the page must know of a model, as plain values: ``meta`` of page and worker, to whom the page adds the language."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict
from typing import Any

import numpy as np

from stillroom.deployment.predictor import Predictor
from stillroom.errors import UsageError
from stillroom.evaluation.questions import question_names
from stillroom.explanation.overlay import palette
from stillroom.explanation.rise import MASKS, drawn
from stillroom.settings.methods import BY_MASKS, DEFAULT
from stillroom.settings.windows import parse_window

_WORKERS_WORDS = ("answer.", "trust.")
"""Texts that the worker speaks, by the beginning of their keys."""


def notes_on(
    predictor: Predictor, texts: dict[str, dict[str, str]], measured: dict[str, Any] | None = None
) -> dict[str, Any]:
    """``meta`` without the card and the licences.

    Args:
        predictor: of the model.
        texts: by language, the words of the page.
        measured: the part ``ood`` of the run's metrics.json; None where the model has no run with it.

    Raises:
        UsageError: the model is an ensemble, whose members have maps of their own.
    """
    said = predictor.metadata
    if "members" in said.details:
        raise UsageError(f"{said.name} is an ensemble, for which there is no page: export one student of its run.")
    tested = (said.explanation or {}).get("method", DEFAULT)
    window = parse_window(said.window)
    return {
        "classes": list(predictor.classes),
        "kind": predictor.task.kind,
        "exclusive": predictor.task.exclusive,
        "paper_softmax": bool(predictor.task.describe().get("paper_softmax", False)),
        "questions": list(question_names(predictor.task)),
        "name": said.name,
        "size": said.size,
        "channels": said.channels,
        "white": said.white,
        "fit": said.fit,
        "temperature": said.temperature,
        "synthetic": said.synthetic,
        "layer": said.layer,
        "hidden": list(said.hidden),
        "explanation": None if said.explanation is None else dict(said.explanation),
        "method": tested if tested in BY_MASKS and (said.layer or tested == "rise") else DEFAULT,
        "rise": _rise(said.size),
        "heat": palette(),
        "conformal": None if predictor.conformal is None else predictor.conformal.to_dict(),
        "foreign": _foreign(predictor, measured),
        "points": [point.to_dict() for point in predictor.points],
        "display": {"window": None if window is None else asdict(window), "white": int(said.white)},
        "window": said.window,
        "shown": list(said.shown),
        "digest": predictor.digest,
        "details": dict(said.details),
        "stillroom": said.stillroom,
        "words": {
            name: {key: text for key, text in table.items() if key.startswith(_WORKERS_WORDS)}
            for name, table in texts.items()
        },
    }


def _foreign(predictor: Predictor, measured: dict[str, Any] | None) -> dict[str, Any] | None:
    """The rule that refuses images, with the share ``refused`` of the test images; None where not measured of this rule."""
    if predictor.foreign is None:
        return None
    rule = predictor.foreign.to_dict()
    share = measured["refused"]["value"] if measured and measured["rule"] == rule else None
    return {**rule, "refused": share}


def _rise(size: int) -> dict[str, Any]:
    """The masks of RISE, as NumPy draws them: bits of the patterns, and where the image lies on each enlarged one."""
    patterns, starts, reach = drawn((size, size))
    return {
        "masks": MASKS,
        "places": patterns.shape[1],
        "patterns": b64encode(np.packbits(patterns).tobytes()).decode(),
        "reach": reach[0],
        "starts": starts.tolist(),
    }
