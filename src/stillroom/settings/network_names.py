"""How a network is named: a name of its origin and, after a question mark, what that origin does not say by itself.

``vit_large_patch14_dinov2``, ``hf-hub:MahmoodLab/UNI@main?init_values=1e-5&dynamic_img_size=true``,
``model.onnx?outputs=logits&classes=benign,malignant&mean=0.5,0.5,0.5&std=0.5,0.5,0.5``. So whatever carries a name (settings,
plan, saved network) can build the network again. Which names there are: :mod:`stillroom.models.origins`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from stillroom.errors import UsageError, nearest

HUB, TRANSFORMERS, OPEN_CLIP, HANDED_OVER = "hf-hub", "hf", "open_clip", "module"
_SCHEMES = (HUB, TRANSFORMERS, OPEN_CLIP, HANDED_OVER)
_SAFE = " ,;./@"
READ = ("outputs", "classes", "mean", "std", "size")
"""Options that say how a network is read; every other one is a keyword of its constructor."""


@dataclass(frozen=True)
class NetworkName:
    """A name in its parts.

    Attributes:
        base: what stands before the question mark.
        options: what stands behind it, as text by name.
    """

    base: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        """``hf-hub``, ``hf``, ``open_clip``, ``module``; ``function`` for package.module:function, and else empty."""
        scheme, colon, _ = self.base.partition(":")
        if scheme in _SCHEMES:
            return scheme
        return "function" if colon and not self.is_path else ""

    @property
    def rest(self) -> str:
        """The base without its scheme."""
        return self.base.partition(":")[2] if self.scheme in _SCHEMES else self.base

    @property
    def is_onnx(self) -> bool:
        return not self.base.startswith(tuple(f"{scheme}:" for scheme in _SCHEMES)) and self.base.lower().endswith(
            ".onnx"
        )

    @property
    def is_path(self) -> bool:
        """Whether it names a folder or file here: it has a separator, a drive letter, or begins like a home folder."""
        if self.base.startswith(tuple(f"{scheme}:" for scheme in _SCHEMES)):
            return False
        return self.is_onnx or "/" in self.base or "\\" in self.base or self.base.startswith(("~", "."))

    @property
    def brings_weights(self) -> bool:
        """Whether the network comes with its weights, so that there are none to be looked for: a file or a module."""
        return self.is_onnx or self.scheme in (HANDED_OVER, "function")

    @property
    def arguments(self) -> dict[str, Any]:
        """Keywords of the constructor: numbers, true and false as such, all else as text."""
        return {key: _value(text) for key, text in self.options.items() if key not in READ}

    def listed(self, option: str) -> tuple[str, ...]:
        """An option's parts between commas; empty where it is not given."""
        return tuple(unquote(part).strip() for part in self.options.get(option, "").split(",") if part.strip())

    def __str__(self) -> str:
        told = "&".join(f"{key}={quote(value, safe=_SAFE)}" for key, value in self.options.items())
        return f"{self.base}?{told}" if told else self.base


def parse(name: str) -> NetworkName:
    """The name's parts. Raises UsageError where what follows the question mark is not key=value&key=value."""
    base, mark, told = name.partition("?")
    options: dict[str, str] = {}
    for part in told.split("&") if told else ():
        key, equals, value = part.partition("=")
        if not key or not equals or key in options:
            raise UsageError(
                f"After the ? of a network's name stands key=value&key=value, each key once; {name} has {part!r}."
            )
        options[key] = unquote(value)
    if not base or (mark and not told):
        raise UsageError(f"{name!r} names no network: write NAME or NAME?key=value.")
    return NetworkName(base, options)


def shown(name: str) -> str:
    """What pages call a network: without options, and of a path the last part alone, for pages are passed on."""
    try:
        found = parse(name)
    except UsageError:  # a page shows what stands there, whatever it is
        return name
    return Path(found.base).name if found.is_path else found.base


def with_options(name: str, options: Mapping[str, str]) -> str:
    """The name with these options beside its own. Raises UsageError where one is given both ways and differs."""
    found = parse(name)
    for key, value in options.items():
        if found.options.get(key, value) != value:
            raise UsageError(f"{name} says {key}={found.options[key]}, the settings say {key}={value}: give it once.")
    return str(NetworkName(found.base, dict(found.options) | dict(options)))


def side_told(name: NetworkName) -> int | None:
    """The option ``size`` in pixels; None where it is not given. Raises UsageError where it is no whole number above 0."""
    text = name.options.get("size")
    if text is None:
        return None
    if not text.isdecimal() or not int(text):
        raise UsageError(f"{name.base}: size is the side of its images in pixels, got {text!r}.")
    return int(text)


def require_known(name: NetworkName, *more: str) -> None:
    """Raises UsageError for an option that means nothing here: none of :data:`READ` and not one of ``more``."""
    known = (*READ, *more)
    for option in name.options:
        if option not in known:
            raise UsageError(f"{name.base} takes no option {option!r} after the ?.{nearest(option, list(known))}")


def listing(values: Iterable[str]) -> str:
    """Names as one option's text, which :meth:`NetworkName.listed` takes apart again."""
    return ",".join(quote(value, safe=_SAFE.replace(",", "")) for value in values)


def anchored_name(name: str) -> str:
    """The name with an absolute path where it names a folder or file."""
    if not name or not parse(name).is_path:
        return name
    found = parse(name)
    return str(NetworkName(str(Path(found.base).expanduser().absolute()), found.options))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
