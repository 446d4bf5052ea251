"""What an exported model says about itself: all that is needed to use it away from the run that made it.

Imports neither torch nor onnx, so that the predictor reads what the exporter wrote with the same code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stillroom.data.geometry import Fit
from stillroom.deployment.exporting_again import export_again
from stillroom.deployment.values import check_values
from stillroom.errors import UsageError
from stillroom.files.own_digest import BLANK, KEY, states_digest
from stillroom.task import Task, from_description

FORMAT = 3
"""Version of the exported file's contract: its inputs, outputs and metadata. Format 2 had no digest."""
_READ = (2, FORMAT)

_PREFIX = "stillroom."


@dataclass(frozen=True)
class ModelMetadata:
    """The notes that travel inside an exported model.

    Attributes:
        task: what the outputs mean and how they are turned into decisions.
        name: the network's name, e.g. ``mobilenetv3_small_100``.
        size: side of the square input image, in pixels.
        channels: 1 (grey) or 3 (RGB).
        white: the pixel value of the training images that became 1.0, e.g. 255.
        fit: how a non-square image becomes square, ``pad`` or ``resize``.
        temperature: what the logits are divided by before the probabilities, inside the graph already.
        synthetic: True for a model trained on phantoms: every page that shows its answers must say so.
        layer: the layer whose output is the graph's ``map``, from which heat maps are made; None where there is no such
            output.
        hidden: the pixel value in [0, 1] of each channel behind which Score-CAM hides parts of the image.
        explanation: how far heat maps were found faithful: ``verdict`` (``faithful``, ``not faithful`` or ``not shown: too
            few images``; missing in files of earlier versions), ``faithful`` (whether it is that; None where it was not
            tested) and ``statement``, a sentence for people.
        conformal: the rule for sets of classes, see :class:`~stillroom.evaluation.conformal.ConformalRule`; None where none
            was fitted.
        foreign: the rule that refuses foreign images, see :class:`~stillroom.evaluation.ood.ForeignRule`; None where none
            was fitted, and the graph then has no output ``distance``.
        window: of grey DICOM images, what goes from black to white, as
            :func:`~stillroom.settings.windows.parse_window` takes it: the one asked for, or the one that all training images
            named; empty where each file says, and in files of earlier versions.
        shown: how grey DICOM images among the training images were shown, see :class:`~stillroom.data.table.Table`; missing
            in files of earlier versions.
        points: operating points, see :class:`~stillroom.evaluation.operating_points.OperatingPoint`; missing in files of
            earlier versions.
        details: free notes for people, e.g. the data set and the run.
        stillroom: version of Stillroom that wrote the file.
    """

    task: Task
    name: str
    size: int
    channels: int
    white: float
    fit: Fit
    temperature: float
    synthetic: bool = False
    layer: str | None = None
    hidden: tuple[float, ...] = (0.0,)
    explanation: Mapping[str, Any] | None = None
    conformal: Mapping[str, Any] | None = None
    foreign: Mapping[str, Any] | None = None
    window: str = ""
    shown: tuple[str, ...] = ()
    points: tuple[Mapping[str, Any], ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)
    stillroom: str = field(default_factory=lambda: version("stillroom"))

    def to_properties(self) -> dict[str, str]:
        """ONNX metadata properties: every value is a JSON text, every key starts with ``stillroom.``.

        The digest is blank: :func:`~stillroom.files.own_digest.with_own_digest` fills it in when the file is written.
        """
        values: dict[str, Any] = {
            "format": FORMAT,
            "version": self.stillroom,
            "task": self.task.describe(),
            "decision_rule": self.task.decision_rule,
            "name": self.name,
            "size": self.size,
            "channels": self.channels,
            "white": self.white,
            "fit": self.fit,
            "temperature": self.temperature,
            "synthetic": self.synthetic,
            "layer": self.layer,
            "hidden": list(self.hidden),
            "explanation": self.explanation,
            "conformal": self.conformal,
            "foreign": self.foreign,
            "window": self.window,
            "shown": list(self.shown),
            "points": list(self.points),
            "details": dict(self.details),
        }
        return {_PREFIX + key: json.dumps(value, sort_keys=True) for key, value in values.items()} | {KEY: BLANK}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], source: str) -> ModelMetadata:
        """Read :meth:`to_properties` back. Raises :class:`UsageError`, naming ``source``, where it cannot."""
        if _PREFIX + "format" not in properties:
            raise UsageError(
                f"{source} is an ONNX model, but not one that Stillroom exported: it says nothing of classes"
                " and preprocessing. Name a run's folder or its student.onnx."
            )
        try:
            values = {
                key.removeprefix(_PREFIX): json.loads(text)
                for key, text in properties.items()
                if key.startswith(_PREFIX)
            }
            if values["format"] not in _READ:
                raise UsageError(
                    f"{source} has format {values['format']}, this Stillroom reads format {FORMAT}: export"
                    f" the model again, or use Stillroom {values.get('version')}, which wrote it."
                )
            if values["format"] == FORMAT and not states_digest(properties):
                raise ValueError("its digest is missing")
            check_values(values)
            return cls(
                task=from_description(values["task"]),
                name=values["name"],
                size=values["size"],
                channels=values["channels"],
                white=float(values["white"]),
                fit=values["fit"],
                temperature=float(values["temperature"]),
                synthetic=values["synthetic"],
                layer=values["layer"],
                hidden=tuple(map(float, values["hidden"])),
                explanation=values["explanation"],
                conformal=values["conformal"],
                foreign=values["foreign"],
                window=values.get("window", ""),
                shown=tuple(values.get("shown", ())),
                points=tuple(values.get("points", ())),  # an earlier version passes them over
                details=values["details"],
                stillroom=values["version"],
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UsageError(
                f"{source} carries damaged Stillroom metadata ({_said(error)})."
                f" Export the model again with {export_again(Path(source))}."
            ) from error


def _said(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
