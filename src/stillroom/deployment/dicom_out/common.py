"""What all objects have in common: who made them, that they are for research, and UIDs that come out the same again."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from stillroom.data.dicom.opening import number_of
from stillroom.deployment.dicom_out.sources import Source
from stillroom.deployment.predictor import Predictor
from stillroom.shown import shown

RESEARCH = "Research use only: made by software that is no medical device and checked by nobody. Not for diagnosis."
"""Stands in every object."""
SYNTHETIC = "Trained on synthetic images: for trying out only."
SCHEME = "99STILLROOM"
"""Designator of our own codes (PS3.16, chapter 8: private ones begin with 99)."""
MAKER = "Stillroom"

_LONGEST = 64  # bytes of a text of the representation LO
_SERIES = {"SR": 9701, "SC": 9702, "PM": 9703}
_MOST = 2**31 - 1


@dataclass(frozen=True)
class Model:
    """The model that answered.

    Attributes:
        name: of the network.
        digest: SHA-256 of its exported file, 64 hex digits.
        software: version of Stillroom that asks it.
        exclusive: whether an image has one class.
        classes: names of its classes.
        synthetic: whether it was trained on synthetic images.
    """

    name: str
    digest: str
    software: str
    exclusive: bool
    classes: tuple[str, ...]
    synthetic: bool

    @classmethod
    def of(cls, predictor: Predictor, digest: str) -> Model:
        """What is told of a predictor whose file has this digest."""
        return cls(
            predictor.name,
            digest,
            version("stillroom"),
            predictor.task.exclusive,
            predictor.classes,
            predictor.synthetic,
        )

    @property
    def warning(self) -> str:
        """That it is for research, and of synthetic images if it is."""
        return f"{RESEARCH} {SYNTHETIC}" if self.synthetic else RESEARCH


def uid_of(*parts: object) -> str:
    """A UID made of these parts alone (PS3.5, B.2): the same parts give the same UID, on every machine."""
    digest = sha256(json.dumps(["stillroom", *parts], default=str).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def line(text: str, longest: int = _LONGEST) -> str:
    """A text as a LO may hold it: without control characters and backslashes, cut to so many bytes.

    The standard counts characters, some programs count bytes.
    """
    content = shown(text).replace("\\", "/").encode()
    return content.decode() if len(content) <= longest else content[: longest - 3].decode(errors="ignore") + "..."


def identity(kind: str, source: Source, frame: int | None, model: Model, *content: object) -> dict[str, Any]:
    """Series, instance and equipment of an object, as highdicom takes them.

    Args:
        kind: ``SR``, ``SC`` or ``PM``: each has a series of its own beside the source's.
        source: the instance that the object is about.
        frame: which of its frames, from 0; None for all.
        model: what answered.
        content: all that the object says: with other content it is another instance, with the same the same.
    """
    about, by = source.about, (model.digest, model.software)
    number = number_of(about, "InstanceNumber", 1.0) or 1.0
    if frame is not None and source.frames > 1:
        number = frame + 1
    return {
        "series_instance_uid": uid_of("series", kind, about.StudyInstanceUID, about.SeriesInstanceUID, *by),
        "series_number": _SERIES[kind],
        "sop_instance_uid": uid_of(kind, about.SOPInstanceUID, frame, *by, *content),
        "instance_number": int(number) if 1 <= number <= _MOST else 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": line(model.name),
        "software_versions": line(model.software),
        "device_serial_number": model.digest,
        "specific_character_set": "ISO_IR 192",
    }
