"""What the threads do with images in memory: the same as `predict` and `explain` do with files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from stillroom.after.heat_map import Explanation, drawing, heat_on, picture_of, trust
from stillroom.data.dicom.opening import frames_of
from stillroom.data.files import decode_image
from stillroom.data.table import UnreadableImage
from stillroom.deployment.prediction import Prediction
from stillroom.errors import UsageError
from stillroom.explanation.claims import Verdict
from stillroom.serving.bodies import Sent
from stillroom.serving.refusals import Refused
from stillroom.serving.shelf import Served
from stillroom.settings.methods import Method


@dataclass(frozen=True)
class Frame:
    """An image in memory.

    Attributes:
        sent: the file.
        frame: which of a DICOM file's frames, from 0.
        frames: how many there are.
    """

    sent: Sent
    frame: int = 0
    frames: int = 1

    @property
    def path(self) -> Path | None:
        """The file's name."""
        return None if self.sent.name is None else Path(self.sent.name)

    @property
    def number(self) -> int | None:
        """Which frame, from 1; None where there is but one."""
        return self.frame + 1 if self.frames > 1 else None


@dataclass(frozen=True)
class Drawn:
    """A heat map.

    Attributes:
        explanation: what is said of the image, and of which class the map is.
        method: how it was drawn.
        verdict, statement: how far it can be trusted, and in words.
        heat: ``[H, W]`` float32 in [0, 1]; None where the image cannot be explained.
        picture: the map over the image.
    """

    explanation: Explanation
    method: Method
    verdict: Verdict | None
    statement: str
    heat: np.ndarray | None = None
    picture: Image.Image | None = None


def frames_in(files: Sequence[Sent], most: int) -> list[Frame]:
    """All images of these files, in order.

    Raises:
        Refused: they are more than ``most``.
    """
    found: list[Frame] = []
    for sent in files:
        frames = frames_of(BytesIO(sent.content))
        if len(found) + frames > most:
            raise Refused(
                413, f"A request may have {most} images, frames of DICOM files counted: send fewer.", "too_many"
            )
        found += [Frame(sent, number, frames) for number in range(frames)]
    return found


def predict(served: Served, frames: Sequence[Frame], *, most: int) -> list[Prediction]:
    """What the model says of each; one that cannot be read, or has more than ``most`` pixels, is answered with its error."""
    images: list[np.ndarray] = []
    errors: list[str | None] = []
    for frame in frames:
        try:
            images.append(_decoded(served, frame, most))
            errors.append(None)
        except UnreadableImage as error:
            errors.append(str(error))
    answers = iter(served.predictor.predict(images, batch_size=len(images)) if images else ())
    given = [next(answers) if error is None else Prediction(None, error=error) for error in errors]
    return [_noted(served, one, frame) for one, frame in zip(given, frames, strict=True)]


def explain(served: Served, frame: Frame, method: Method, of: str | None, *, most: int) -> Drawn:
    """The heat map of a class, by default the most probable one; none where the image has more than ``most`` pixels.

    Raises:
        Refused: the model draws no such map.
    """
    predictor = served.predictor
    try:
        image = _decoded(served, frame, most)
        prepared = predictor.prepare(image)
    except (UnreadableImage, UsageError) as error:
        return _without(Prediction(frame.path, error=str(error), frame=frame.number), method)
    try:
        answer, name, heat = heat_on(predictor, drawing(predictor, served.path, method), image, prepared, of)
    except UsageError as error:
        raise Refused(422, str(error), "no_map") from None
    prediction = _noted(served, answer, frame)
    if name is None or heat is None:
        return _without(prediction, method)
    explanation = Explanation(prediction, name, not heat.any())
    verdict, statement = trust(predictor, method, explanation)
    return Drawn(explanation, method, verdict, statement, heat, picture_of(predictor, image, heat))


def _without(prediction: Prediction, method: Method) -> Drawn:
    return Drawn(Explanation(prediction), method, None, "")


def _noted(served: Served, answer: Prediction, frame: Frame) -> Prediction:
    noted = served.predictor.noted(answer, BytesIO(frame.sent.content), frame.frame)
    return replace(noted, path=frame.path, frame=frame.number)


def _decoded(served: Served, frame: Frame, most: int) -> np.ndarray:
    return decode_image(BytesIO(frame.sent.content), frame.frame, served.predictor.display, most)
