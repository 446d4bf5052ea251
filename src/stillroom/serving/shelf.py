"""The models that a server answers by, under names; each can be exchanged while requests run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import perf_counter

import numpy as np

from stillroom.deployment.predictor import MODEL_FILE, Predictor
from stillroom.errors import UsageError, nearest
from stillroom.serving.line import Kind
from stillroom.settings.methods import BY_MASKS, DEFAULT, Method

NOTICE = "Research use only: no medical device."


@dataclass(frozen=True, eq=False)
class Served:
    """One opened model.

    Attributes:
        name: under which it is asked for.
        path: the run folder or file that it was opened from.
        predictor: the model.
        digest: SHA-256 of its file.
        seconds: that one image of its own size took, to begin estimates with.
        kinds: what can be asked of it, by name, with what each has cost lately.
    """

    name: str
    path: Path
    predictor: Predictor
    digest: str
    seconds: float
    kinds: dict[str, Kind] = field(default_factory=dict)

    @cached_property
    def method(self) -> Method:
        """The heat map that its run has tested, where the file can draw it, else the default one."""
        tested: Method = (self.predictor.metadata.explanation or {}).get("method", DEFAULT)
        return tested if tested in BY_MASKS else DEFAULT

    def to_dict(self) -> dict[str, object]:
        """What every answer says of the model that gave it."""
        return {"name": self.name, "digest": self.digest, "synthetic": self.predictor.synthetic}


class Shelf:
    """Models by name. Whoever has taken one keeps it, whatever is put in its place meanwhile."""

    def __init__(self, models: Sequence[Served]) -> None:
        self._models = {one.name: one for one in models}

    @classmethod
    def open(cls, runs: Sequence[str]) -> Shelf:
        """Open models given as ``PATH`` or ``NAME=PATH``.

        Raises:
            UsageError: one cannot be opened, or two have the same name.
        """
        places: dict[str, Path] = {}
        for text in runs:
            name, path = _named(text)
            if name in places:
                raise UsageError(f"{places[name]} and {path} would both be called {name}: name one as other={path}.")
            places[name] = path
        if not places:
            raise UsageError("Say what to serve: a run folder or an exported .onnx file.")
        return cls([open_model(name, path) for name, path in places.items()])

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were given."""
        return tuple(self._models)

    def __iter__(self) -> Iterator[Served]:
        return iter(tuple(self._models.values()))

    def __getitem__(self, name: str) -> Served:
        """Raises KeyError with a text for people where there is none of this name."""
        try:
            return self._models[name]
        except KeyError:
            raise KeyError(
                f"There is no model of that name.{nearest(name, self.names)} Models: {', '.join(self.names)}."
            ) from None

    def only(self) -> Served:
        """The one model. Raises KeyError with a text for people where there are several."""
        if len(self._models) > 1:
            raise KeyError(f"Several models are served, so name one: /v1/models/NAME/... with {', '.join(self.names)}.")
        return next(iter(self._models.values()))

    def reload(self, name: str) -> Served:
        """Open a model's file again and put it in the place of the old one; what runs goes on with the old one.

        Raises:
            UsageError: it cannot be opened; the old one stays.
        """
        new = open_model(name, self._models[name].path)
        self._models[name] = new
        return new


def open_model(name: str, path: Path) -> Served:
    """Open a model and ask it once, so that the first request need not wait for what the runtime prepares."""
    predictor = Predictor.load(path, threads=1)
    blank = np.zeros((predictor.size, predictor.size), dtype=np.uint8)
    predictor.predict([blank])
    start = perf_counter()
    predictor.predict([blank])
    return Served(name, path, predictor, predictor.digest, perf_counter() - start)


def _named(text: str) -> tuple[str, Path]:
    """A name and a path. Without a name: the run folder's, or the file's without ending."""
    name, equals, rest = text.partition("=")
    if not equals or Path(text).exists():
        path = Path(text)
        whole = path.resolve()
        name = whole.parent.name if whole.name == MODEL_FILE else whole.name.removesuffix(".onnx")
    elif "/" in name and not Path(rest).exists():
        raise UsageError(f"There is neither {text} nor, where NAME=PATH is meant, {rest or 'a path behind the ='}.")
    else:
        path = Path(rest)
    if not name or not all(letter.isalnum() or letter in "-_." for letter in name):
        allowed = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip("-")
        raise UsageError(
            f"{text}: a model's name has letters, digits, - _ and . alone; give one as in {allowed or 'first'}={path}."
        )
    return name, path
