"""What each value in an exported file's metadata may be: one that cannot be true is refused by its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

from stillroom.data.dicom.grey import WAYS
from stillroom.data.geometry import Fit
from stillroom.errors import UsageError
from stillroom.evaluation.questions import question_names
from stillroom.explanation.claims import VERDICTS
from stillroom.settings.methods import METHODS
from stillroom.settings.windows import parse_window
from stillroom.task import from_description

_LEAST = -1e-6
"""Of a threshold: minus the logarithm of a probability, which rounding may have left above 1."""

_KINDS = ("binary", "multiclass", "ordinal", "multilabel")


def check_values(values: Mapping[str, Any]) -> None:
    """Check the metadata's values, by their names without the prefix.

    Raises:
        ValueError: a value cannot be true; the message names it, and says what it may be.
        KeyError: one is missing.
    """
    for name, (holds, form) in _WANTED.items():
        _require(name, values[name], holds, form)
    _check_task(values["task"])
    count, exclusive = len(values["task"]["classes"]), values["task"]["kind"] != "multilabel"
    hidden = values["hidden"]
    if len(hidden) not in (1, values["channels"]):
        raise ValueError(f"hidden has {len(hidden)} values for {values['channels']} channels")
    for part, forms in (("explanation", _EXPLANATION), ("conformal", _CONFORMAL), ("foreign", _FOREIGN)):
        stored = values[part]
        if stored is None:
            continue
        if not isinstance(stored, dict):
            raise ValueError(f"{part} is {_shown(stored)}; it must be an object or null")
        for name, (holds, form) in forms.items():
            _require(f"{part}.{name}", stored[name], holds, form)
    if "verdict" in (values["explanation"] or {}):  # files of before there were three have none
        _require("explanation.verdict", values["explanation"]["verdict"], _verdict, f"one of {', '.join(VERDICTS)}")
    if "window" in values:  # files of before there was DICOM have none
        _require("window", values["window"], _window, "empty, CENTER,WIDTH or the name of a window")
    if "shown" in values:
        _require("shown", values["shown"], _ways, f"a list, each one of {', '.join(WAYS)}")
    _check_points(values.get("points", []), values["task"])
    if values["conformal"] is not None:
        _check_thresholds(values["conformal"]["thresholds"], count, exclusive)
    if values["foreign"] is not None and (more := values["foreign"].keys() - _FOREIGN.keys()):
        raise ValueError(f"foreign has the unknown part {min(more)}")


def _require(name: str, value: Any, holds: Callable[[Any], bool], wanted: str) -> None:
    if not holds(value):
        raise ValueError(f"{name} is {_shown(value)}; it must be {wanted}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_task(task: Any) -> None:
    if not isinstance(task, dict):
        raise ValueError(f"task is {_shown(task)}; it must be an object")
    _require("task.kind", task["kind"], lambda kind: kind in _KINDS, f"one of {', '.join(_KINDS)}")
    _require(
        "task.classes",
        task["classes"],
        lambda names: isinstance(names, list) and len(names) > 0 and all(isinstance(n, str) and n for n in names),
        "a list of names",
    )
    told = from_description(task).describe()  # raises where names are equal
    for name in task.keys() | told.keys():
        if name not in task or name not in told or task[name] != told[name]:
            raise ValueError(f"task.{name} is {_shown(task.get(name))}, which does not go with the rest of the task")


def _check_thresholds(thresholds: Any, count: int, exclusive: bool) -> None:
    def fits(one: Any) -> bool:
        return one is None or (_number(one) and one >= _LEAST)

    good = isinstance(thresholds, list) and len(thresholds) == count
    if good and exclusive:
        good = all(fits(one) for one in thresholds)
    elif good:
        good = all(isinstance(pair, list) and len(pair) == 2 and all(map(fits, pair)) for pair in thresholds)
    if not good:
        form = "a number or null" if exclusive else "a pair of numbers or nulls"
        raise ValueError(
            f"conformal.thresholds is {_shown(thresholds)}; it must hold {form} for each of {count} classes"
        )


def _check_points(points: Any, task: Any) -> None:
    _require(
        "points", points, lambda value: isinstance(value, list) and all(isinstance(p, dict) for p in value), "a list"
    )
    questions = question_names(from_description(task))
    for number, point in enumerate(points):
        for name, (holds, form) in _POINT.items():
            _require(f"points[{number}].{name}", point[name], holds, form)
        _require(f"points[{number}].of", point["of"], lambda of: of in questions, f"one of {', '.join(questions)}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _white(value: Any) -> bool:
    return _number(value) and value in {2**bits - 1 for bits in range(8, 17)}


def _share(value: Any) -> bool:
    return _number(value) and 0 < value < 1


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _window(value: Any) -> bool:
    try:
        parse_window(value)
    except (UsageError, AttributeError):
        return False
    return True


def _ways(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one in WAYS for one in value)


def _verdict(value: Any) -> bool:
    return value in VERDICTS


def _count(value: Any) -> bool:
    return _whole(value) and value >= 1


def _above_0(value: Any) -> bool:
    return _number(value) and value > 0


_Form = tuple[Callable[[Any], bool], str]

_WANTED: dict[str, _Form] = {
    "version": (_text, "a text"),
    "decision_rule": (_text, "a text"),
    "name": (lambda value: _text(value) and bool(value), "a name"),
    "size": (_count, "a whole number of pixels, 1 or more"),
    "channels": (lambda value: _whole(value) and value in (1, 3), "1 or 3"),
    "white": (_white, "one less than a power of two, from 255 to 65535"),
    "fit": (lambda value: value in get_args(Fit), " or ".join(get_args(Fit))),
    "temperature": (_above_0, "above 0 and finite"),
    "synthetic": (_flag, "true or false"),
    "layer": (lambda value: value is None or _text(value), "a name or null"),
    "hidden": (
        lambda value: isinstance(value, list) and bool(value) and all(_number(v) and 0 <= v <= 1 for v in value),
        "numbers from 0 to 1",
    ),
    "details": (
        lambda value: isinstance(value, dict) and all(_text(text) for text in value.values()),
        "texts by name",
    ),
}
_EXPLANATION: dict[str, _Form] = {
    "faithful": (lambda value: value is None or _flag(value), "true, false or null"),
    "statement": (_text, "a text"),
    "method": (lambda value: value in METHODS, f"one of {', '.join(METHODS)}"),
    "fast": (lambda value: value is None or isinstance(value, dict), "an object or null"),
}
_CONFORMAL: dict[str, _Form] = {
    "coverage": (_share, "between 0 and 1"),
    "class_conditional": (_flag, "true or false"),
    "thresholds": (lambda value: isinstance(value, list), "a list"),
    "images": (_count, "a whole number, 1 or more"),
}
_FOREIGN: dict[str, _Form] = {
    "energy_location": (_number, "a finite number"),
    "energy_scale": (_above_0, "above 0 and finite"),
    "distance_location": (_number, "a finite number"),
    "distance_scale": (_above_0, "above 0 and finite"),
    "threshold": (lambda value: value is None or _number(value), "a finite number or null"),
    "refusals": (_share, "between 0 and 1"),
    "images": (_count, "a whole number, 1 or more"),
}
_POINT: dict[str, _Form] = {
    "of": (_text, "a text"),
    "for": (lambda value: value in ("sensitivity", "specificity"), "sensitivity or specificity"),
    "wanted": (_share, "between 0 and 1"),
    "threshold": (lambda value: _number(value) and 0 <= value <= 1.001, "a probability, or just above 1"),
    "promised": (_share, "between 0 and 1"),
    "images": (_count, "a whole number, 1 or more"),
    "units": (lambda value: _number(value) and value >= 1 - 1e-9, "a number, 1 or more"),
}
