"""Predictions from an exported model, away from training: NumPy, Pillow and ONNX Runtime, no torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from stillroom.data.dicom.directory import listed_images
from stillroom.data.dicom.grey import Display
from stillroom.data.dicom.recognising import is_directory
from stillroom.data.files import FileReader
from stillroom.data.geometry import as_stored, brighter
from stillroom.data.listing import list_pictures
from stillroom.data.pictures import Picture, pictures_in
from stillroom.data.table import Table, UnreadableImage
from stillroom.deployment.display_notes import note_on_display
from stillroom.deployment.exporting_again import export_again
from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.prediction import Prediction
from stillroom.deployment.session import Opened, first_line, open_session, require_fit, stamp_of
from stillroom.errors import RunError, UsageError
from stillroom.evaluation.conformal import ConformalRule
from stillroom.evaluation.ood import ForeignRule, energy
from stillroom.evaluation.operating_points import OperatingPoint, flagged
from stillroom.files.digests import require_whole
from stillroom.files.own_digest import own_state
from stillroom.settings.windows import parse_window
from stillroom.task import Task

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MODEL_FILE = "student.onnx"
"""Name of the exported model in a run's folder."""

Source = Path | str | np.ndarray
"""An image file, a folder or DICOMDIR of them, or a decoded image."""


class PassedOver(UserWarning):
    """Given where a folder to predict holds masks, files that may be masks, or files that are not read."""


class Predictor:
    """An exported model, ready to answer. Made by :meth:`load`; the same on every machine with a CPU.

    It can be pickled and copied, with all of the model, and so be sent to other processes and machines.

    Attributes:
        metadata: all that the file says about itself.
        conformal: its rule for sets of classes, or None.
        foreign: its rule for foreign images, or None.
        points: its operating points.
    """

    def __init__(self, session: InferenceSession, metadata: ModelMetadata, opened: Opened) -> None:
        self.metadata = metadata
        self._session, self._opened = session, opened
        self.conformal = ConformalRule.from_dict(metadata.conformal) if metadata.conformal else None
        self.foreign = ForeignRule.from_dict(metadata.foreign) if metadata.foreign else None
        self.points = tuple(map(OperatingPoint.from_dict, metadata.points))

    @classmethod
    def load(cls, source: Path | str, *, threads: int = 0, level: str = "all") -> Predictor:
        """Open a model.

        Args:
            source: a run's folder that holds ``student.onnx``, or an ``.onnx`` file.
            threads: CPU threads for one batch; 0 takes one per physical core.
            level: how far ONNX Runtime rearranges the graph before it runs it: ``none``, ``basic``, ``extended`` or ``all``.

        Raises:
            UsageError: there is no such model, it is not as it was exported, or it was not exported by Stillroom.
        """
        path = Path(source)
        if path.is_dir():
            path = path / MODEL_FILE
            if not path.is_file():
                raise UsageError(
                    f"{source} holds no {MODEL_FILE}: name the folder of a finished run, or an .onnx file."
                )
        if not path.is_file():
            raise UsageError(f"There is no model at {path}: name the folder of a finished run, or an .onnx file.")

        def remedy() -> str:
            return f"copy it again, or export it again with {export_again(path)}"

        if own_state(path) == "damaged":
            raise UsageError(f"{path} was changed or damaged after it was exported: {remedy()}.")
        require_whole(path, remedy)
        opened = Opened(path, threads, stamp_of(path), level)
        session = open_session(path, opened)
        try:
            properties = session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError:
            raise UsageError(f"{path} carries damaged Stillroom metadata (no text): {remedy()}.") from None
        metadata = ModelMetadata.from_properties(properties, str(path))
        require_fit(session, metadata, path)
        return cls(session, metadata, opened)

    @property
    def _remedy(self) -> str:
        return f"Export it again with {export_again(self._opened.path)}."

    def __getstate__(self) -> tuple[ModelMetadata, Opened]:
        return self.metadata, replace(self._opened, content=self._opened.read())

    def __setstate__(self, state: tuple[ModelMetadata, Opened]) -> None:
        metadata, opened = state
        self.__init__(open_session(opened.read(), opened), metadata, opened)  # type: ignore[misc]

    @property
    def task(self) -> Task:
        """What the classes mean and how decisions are made."""
        return self.metadata.task

    @property
    def classes(self) -> tuple[str, ...]:
        """The ``K`` class names, in the order of the outputs."""
        return self.metadata.task.classes

    @property
    def size(self) -> int:
        """Side of the square input, in pixels."""
        return self.metadata.size

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return self.metadata.channels

    @property
    def name(self) -> str:
        """The network's name."""
        return self.metadata.name

    @property
    def digest(self) -> str:
        """SHA-256 of the exported file, as ``sha256sum`` gives it. Raises UsageError where it has changed since."""
        return sha256(self._opened.read()).hexdigest()

    @property
    def synthetic(self) -> bool:
        """True for a model trained on phantoms: every page that shows its answers must say so."""
        return self.metadata.synthetic

    @property
    def display(self) -> Display:
        """How DICOM images are shown: in the window of the training images, in the range of their white."""
        return Display(parse_window(self.metadata.window), int(self.metadata.white))

    def reader(self, pictures: Sequence[Picture]) -> FileReader:
        """What decodes these images as the training images were decoded."""
        paths, frames = tuple(one.path for one in pictures), tuple(one.frame for one in pictures)
        return FileReader(paths, frames=frames, display=self.display)

    def as_shown(self, table: Table) -> Table:
        """A table whose DICOM images, if it has any, are decoded as the training images were."""
        if not isinstance(table.reader, FileReader):
            return table
        return replace(table, reader=replace(table.reader, display=self.display))

    def ask(self, batch: np.ndarray, *names: str) -> dict[str, np.ndarray]:
        """Outputs of the graph by name, see :func:`~stillroom.deployment.onnx.export_onnx`.

        Args:
            batch: ``[N, C, S, S]`` float32 in [0, 1].
            names: of ``logits``, ``probabilities``, and, where the file has them, ``map`` and ``distance``.

        Raises:
            RunError: the runtime fails on the graph, or what it answers is not a finite answer to each image.
        """
        found = self.outputs(batch, names)
        if not all(np.isfinite(values).all() for values in found.values()):
            raise RunError(f"{self._opened.path} answers with values that are not finite numbers. {self._remedy}")
        return found

    def outputs(self, batch: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """As :meth:`ask`, with values that may not be finite."""
        images = np.ascontiguousarray(batch, dtype=np.float32)
        try:
            found = dict(zip(names, self._session.run(list(names), {"images": images}), strict=True))
        except Exception as error:  # the runtime's own exception types have no public base
            raise RunError(f"{self._opened.path} cannot answer: {first_line(error)}. {self._remedy}") from error
        for name, values in found.items():
            wanted = (len(images), len(self.classes)) if name in ("logits", "probabilities") else (len(images),)
            if values.shape[: len(wanted)] != wanted:
                shapes = f"to {len(images)} images it has {name} of shape {list(values.shape)}"
                raise RunError(f"{self._opened.path} does not answer as it should: {shapes}. {self._remedy}")
        return found

    def run(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``[N, C, S, S]`` float32 in [0, 1] to ``(logits, probabilities)``, ``[N, K]`` float32 each."""
        found = self.ask(batch, "logits", "probabilities")
        return found["logits"], found["probabilities"]

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """``[N, C, S, S]`` float32 in [0, 1] to ``[N, K]`` float32, before the temperature."""
        return self.run(batch)[0]

    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        """``[N, C, S, S]`` float32 in [0, 1] to calibrated ``[N, K]`` float32."""
        return self.run(batch)[1]

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """One decoded image as the network was trained to see it: the array store's own preprocessing.

        An 8-bit image is scaled by its own full range, 255, whatever the training images' white was, so that
        a model trained on 16 bits can be shown the 8-bit copy of such an image. A handful of pixels that are brighter than
        the training images' white is shown as white (:meth:`note_on`). A colour image turns grey for a grey model, a grey
        one fills all channels of a colour model.

        Args:
            image: ``[H, W]`` or ``[H, W, 3]``, uint8 or uint16, of any size.

        Returns:
            ``[C, S, S]`` float32 in [0, 1].

        Raises:
            UsageError: the array is no such image, or more than a handful of its pixels are brighter than the training
                images' white.
        """
        shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        if not shaped or image.size == 0 or image.dtype not in (np.uint8, np.uint16):
            raise UsageError(
                f"An image must be [H, W] or [H, W, 3] of uint8 or uint16, not {list(image.shape)} of {image.dtype}."
            )
        white = self.metadata.white
        stored = as_stored(image, self.size, self.metadata.fit, self.channels == 3, white)
        return stored.astype(np.float32) / np.float32(white)

    def note_on(self, image: np.ndarray) -> str | None:
        """What :meth:`prepare` does to this image that one should know; None where there is nothing to say."""
        if image.dtype != np.uint16 or not (above := brighter(image, self.metadata.white)):
            return None
        pixels = "1 pixel is" if above == 1 else f"{above} pixels are"
        return f"{pixels} brighter than {self.metadata.white:g}, the model's white, and shown as white"

    def noted(self, answer: Prediction, file: BinaryIO, frame: int) -> Prediction:
        """An answer, with a note where its image is DICOM that is not shown as the training images were.

        Args:
            answer: what is said of the image.
            file: the image's, open.
            frame: which frame of it, from 0.
        """
        said = None if answer.error else note_on_display(self.metadata, file, frame)
        return replace(answer, note="; ".join(filter(None, (answer.note, said)))) if said else answer

    def noted_of(self, answer: Prediction, one: Picture) -> Prediction:
        """The same of a file by its path."""
        if answer.error:
            return answer
        try:
            with one.path.open("rb") as file:
                return self.noted(answer, file, one.frame)
        except OSError:  # it could be read a moment ago
            return answer

    def predict(self, images: Source | Sequence[Source], batch_size: int = 32) -> list[Prediction]:
        """Predict images; one that cannot be read is answered with its error and stops no other.

        Args:
            images: files, folders (all images in them and below, by name, without masks; a warning, :class:`PassedOver`,
                tells what is left out), DICOMDIR files (all images that they list) and decoded arrays as in
                :meth:`prepare`. Of a DICOM file of several frames each is an image.
            batch_size: images per call of the runtime; memory grows with it, answers do not depend on it.

        Returns:
            One prediction per image, in order.

        Raises:
            UsageError: a folder holds no image.
        """
        sources = list(expand(images))
        predictions: list[Prediction] = []
        for start in range(0, len(sources), batch_size):
            predictions += self._predict_batch(sources[start : start + batch_size])
        return predictions

    def _predict_batch(self, sources: list[Picture | np.ndarray]) -> list[Prediction]:
        prepared: list[np.ndarray] = []
        errors: list[str | None] = []
        notes: list[str | None] = []
        for source in sources:
            try:
                image = source if isinstance(source, np.ndarray) else self.reader([source]).read(0)
                prepared.append(self.prepare(image))
                notes.append(self.note_on(image))
                errors.append(None)
            except (UnreadableImage, UsageError) as error:
                errors.append(str(error))
        read = [_path(source) for source, error in zip(sources, errors, strict=True) if error is None]
        found = self.answers(np.stack(prepared), read) if prepared else []
        answers = iter([replace(one, note=note) for one, note in zip(found, notes, strict=True)])
        given = [
            next(answers) if error is None else Prediction(_path(source), error=error)
            for source, error in zip(sources, errors, strict=True)
        ]
        return [
            one if isinstance(source, np.ndarray) else replace(self.noted_of(one, source), frame=source.number)
            for one, source in zip(given, sources, strict=True)
        ]

    def answers(self, batch: np.ndarray, paths: Sequence[Path | None]) -> list[Prediction]:
        """What is said of prepared images.

        Args:
            batch: ``[N, C, S, S]`` float32 in [0, 1].
            paths: ``[N]`` the files they come from, or None.
        """
        names = ["logits", "probabilities", *(["distance"] if self.foreign else [])]
        found = self.outputs(batch, names)
        sound = np.all([np.isfinite(values).reshape(len(batch), -1).all(axis=1) for values in found.values()], axis=0)
        if not sound.all():
            found = {name: np.nan_to_num(values) for name, values in found.items()}
        logits, probabilities = found["logits"], found["probabilities"]
        decided = self.task.one_hot(self.task.decide(probabilities)).astype(bool)
        scores = None
        if self.foreign:
            scores = self.foreign.scores(energy(self.task, logits), found["distance"])
        sets = self.conformal.sets(self.task, logits) if self.conformal else None
        raised = flagged(self.task, self.task.probabilities(logits, self.metadata.temperature), self.points)
        predictions = []
        for row, path in enumerate(paths):
            if not sound[row]:
                predictions.append(Prediction(path, error="the model's answer to it is not a finite number"))
                continue
            possible, unsure = None, np.zeros(len(self.classes), dtype=bool)
            if sets is not None:
                possible = sets[row] if self.task.exclusive else sets[row, :, 1]
                unsure = unsure if self.task.exclusive else sets[row].all(axis=1)
            score = None if scores is None else float(scores[row])
            foreign = None if score is None or not self.foreign else score > self.foreign.threshold
            flags = () if foreign else tuple(zip(self.points, raised[row], strict=True))
            predictions.append(
                Prediction(
                    path=path,
                    decision=self._named(decided[row]),
                    probabilities={name: float(p) for name, p in zip(self.classes, probabilities[row], strict=True)},
                    possible=None if possible is None else self._named(possible),
                    unsure=self._named(unsure),
                    foreign=foreign,
                    foreign_score=score,
                    flagged={point.name: bool(on) for point, on in flags},
                    promised={point.name: point.promised for point, _ in flags},
                )
            )
        return predictions

    def _named(self, chosen: np.ndarray) -> tuple[str, ...]:
        return tuple(name for name, on in zip(self.classes, chosen, strict=True) if on)


def expand(images: Source | Iterable[Source]) -> Iterator[Picture | np.ndarray]:
    """Images and arrays one by one: of a folder those in it, without masks, of a DICOMDIR those that it lists.

    One alone is taken for a list of one. What of a folder is left out, or may be a mask, is told by warnings of the category
    :class:`PassedOver`.
    """
    for image in [images] if isinstance(images, str | Path | np.ndarray) else images:
        if isinstance(image, np.ndarray):
            yield image
        elif (path := Path(image)).is_dir():
            found, notes = list_pictures(path)
            if not found:
                raise UsageError(f"There is no image in the folder {image}: name images, or a folder that holds some.")
            for note in notes:
                warnings.warn(note, PassedOver, stacklevel=3)
            yield from pictures_in(found)
        elif is_directory(path) and path.is_file():
            yield from pictures_in(listed_images(path))
        else:
            yield from pictures_in([path])


def _path(source: Picture | np.ndarray) -> Path | None:
    return None if isinstance(source, np.ndarray) else source.path
