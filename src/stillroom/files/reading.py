"""JSON and YAML that people and disks may have changed: their values, or one line that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError
from stillroom.extras import need
from stillroom.files.walk import not_a_file

_MOST_VALUES = 200_000
"""In a file that people write; more is a file that refers to itself, or was made to fill the memory."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UsageError, naming the file, where it is none; FileNotFoundError where nothing is there."""
    try:
        content = json.loads(_text(path, "JSON"))
    except (ValueError, RecursionError):  # also of a number with too many digits
        raise UsageError(f"{path} is damaged: it is not JSON.") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is damaged: it should hold values by name, found {_kind(content)}.")
    return content


def read_yaml(path: Path, what: str) -> Any:
    """A YAML file's content. Raises UsageError, naming the file, where it cannot be read; ``what`` it should have been."""
    need("yaml", f"Reading {path}")
    import yaml

    try:
        content = yaml.safe_load(_text(path, what))
    except FileNotFoundError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except RecursionError:
        raise UsageError(f"{path} is not {what}: it is nested too deep.") from None
    except UsageError:
        raise
    except Exception as error:  # PyYAML's own, and whatever a value that is none of its kind makes it raise
        why = " ".join(str(error).split())[:300].rstrip(".")
        if "set_int_max_str_digits" in why:  # Python's advice is for programmers
            why = "it holds a number of too many digits"
        raise UsageError(f"{path} is not valid YAML: {why}.") from None
    if _too_many(content):
        raise UsageError(f"{path} is not {what}: it holds far too many values, or refers to itself.")
    return content


def in_short(value: Any, most: int = 100) -> str:
    """A value as Python writes it, or the beginning of that: of what a file holds nobody knows how long it is."""
    import reprlib

    writer = reprlib.Repr()
    writer.maxstring = writer.maxother = most
    try:
        return writer.repr(value)
    except ValueError:  # a number with too many digits
        return "a number of very many digits"


def _text(path: Path, what: str) -> str:
    if kind := not_a_file(path):
        raise UsageError(f"{path} cannot be read: it is {kind}, not a file.")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not {what}: it is not text in UTF-8.") from None
    except (OSError, ValueError) as error:  # the latter of a name that no file can have
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _too_many(content: Any) -> bool:
    """Whether a walk through all values, those met again included, does not come to its end."""
    todo, seen = [content], 0
    while todo and seen <= _MOST_VALUES:
        value = todo.pop()
        seen += 1
        if isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            todo += value
    return seen > _MOST_VALUES


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", bool: "yes or no", type(None): "nothing"}.get(type(value), "a number")
