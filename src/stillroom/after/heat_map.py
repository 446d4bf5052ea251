"""Explain single images with a finished run or an exported file: a picture, the map itself, and how far it can be trusted.

RISE and Score-CAM run on the exported student through ONNX Runtime; the other maps need the run's torch network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stillroom.data.geometry import on_original
from stillroom.data.pictures import Picture
from stillroom.data.table import UnreadableImage
from stillroom.deployment.edge_maps import edge_map
from stillroom.deployment.prediction import Prediction
from stillroom.deployment.predictor import Predictor, expand
from stillroom.errors import UsageError, nearest
from stillroom.explanation.claims import FAITHFUL, Verdict, verdict_of
from stillroom.explanation.overlay import overlay
from stillroom.extras import need
from stillroom.files.atomic import write_atomically
from stillroom.files.cache import fingerprint
from stillroom.files.places import require_folder_place
from stillroom.progress import progress
from stillroom.run.claims import alone_where
from stillroom.run.folder import Run
from stillroom.settings.methods import BY_MASKS, DEFAULT, METHODS, Method

_ORIGIN = "stillroom.origin"
"""In a picture: what it was made of, so that a later call writes over this picture and over no other image's."""
_LONGEST_STEM = 200
"""A file's name has 255 bytes at most, of which some are left for its ending."""

Draw = Callable[[np.ndarray, int], np.ndarray]
"""``[C, S, S]`` float32 in [0, 1] and the number of a class to the heat map ``[S, S]``."""

Place = Callable[[Picture, str], tuple[Path, PngInfo]]
"""An image and the class explained to where its files go."""

UNTESTED = (
    "Whether this model's maps are faithful was not tested: its run made none (--explain 0), or was stopped before."
)


@dataclass(frozen=True)
class Explanation:
    """One image, explained.

    Attributes:
        prediction: what the model says of the image, with its path; with an error, all the rest is None.
        of: name of the class explained.
        empty: whether the map is all 0: nothing speaks for the class.
        picture: the written overlay.
        array: the written map, a .npy file of ``[H, W]`` float32 in [0, 1] at the image's own size.
    """

    prediction: Prediction
    of: str | None = None
    empty: bool | None = None
    picture: Path | None = None
    array: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return self.prediction.to_dict() | {
            "class": self.of,
            "empty": self.empty,
            "picture": self.picture and str(self.picture),
            "array": self.array and str(self.array),
        }


def explain(
    source: Path | str,
    images: Path | str | Sequence[Path | str],
    *,
    method: Method | None = None,
    of: str | None = None,
    out: Path | str | None = None,
    show_progress: bool = True,
) -> list[Explanation]:
    """Explain images, and write an overlay and a map for each; one that cannot be read stops no other.

    Args:
        source: a run folder, or an exported .onnx file, which makes RISE and Score-CAM alone.
        images: files, and folders of them.
        method: see :func:`~stillroom.explanation.heat_maps.heat_maps`. Default: see :func:`default_method`.
        of: name of the class to explain. Default: for each image the most probable.
        out: folder for the files, which are named after image and class, and after the method where it is not the default
            one; numbered where a picture of another image or model has that name. Default: ``explanations`` in the run
            folder, or in the current folder for an exported file.
        show_progress: show a bar.

    Raises:
        UsageError: an unknown class or method, a model without a map, or a folder without images.
    """
    predictor = Predictor.load(source)
    method = method or default_method(predictor, source)
    if method not in METHODS:
        raise UsageError(f"There is no heat map {method!r}.{nearest(method, METHODS)} Methods: {', '.join(METHODS)}.")
    if of is not None and of not in predictor.classes:
        raise UsageError(
            f"The model knows no class {of!r}.{nearest(of, predictor.classes)} Classes: {', '.join(predictor.classes)}."
        )
    if method not in BY_MASKS and not Path(source).is_dir():
        raise UsageError(
            f"{method} needs gradients or torch: name the run's folder, not an exported file, or use rise or score_cam."
        )
    folder = Path(out) if out else (Path(source) / "explanations" if Path(source).is_dir() else Path("explanations"))
    require_folder_place(folder)
    pictures = [one for one in expand(images) if isinstance(one, Picture)]
    draw = drawing(predictor, source, method)
    suffix = () if method == default_method(predictor, source) else (method,)
    place = partial(_free_place, folder, suffix, Path(source).absolute(), set())
    done = []
    with alone_where(folder), progress("explain", len(pictures), enabled=show_progress) as advance:
        for picture in pictures:
            done.append(_explained(predictor, draw, picture, of, place))
            advance()
    return done


def default_method(predictor: Predictor, source: Path | str) -> Method:
    """The heat map that the run has tested for faithfulness, where ``source`` can draw it; else :data:`DEFAULT`."""
    tested: Method = (predictor.metadata.explanation or {}).get("method", DEFAULT)
    return tested if tested in BY_MASKS or Path(source).is_dir() else DEFAULT


def drawing(predictor: Predictor, source: Path | str, method: Method) -> Draw:
    """What draws maps of this method: the exported file by itself, or for others the run's torch network."""
    if method in BY_MASKS:
        return partial(edge_map, predictor, method=method)
    return _by_torch(Path(source), method, predictor.metadata.layer)


def trust(predictor: Predictor, method: str, explanation: Explanation | None = None) -> tuple[Verdict | None, str]:
    """The verdict on this model's maps, None where they were not tested, and a sentence that says so.

    Tested were maps of the class decided for, where that is positive, of images of the model's kind: of another
    ``explanation`` nothing is known.
    """
    tested = predictor.metadata.explanation
    if tested is None or tested.get("faithful") is None:
        return None, UNTESTED
    statement = str(tested["statement"])
    agreed = ((tested["fast"] or {}).get("pearson") or {}).get("value")
    if agreed is not None and method == "score_cam_fast":
        statement += (
            f" The fast map's correlation with the exact one is {agreed:.2f} on {tested['fast']['images']} test images."
        )
    if method == tested["method"]:
        verdict = verdict_of(tested)
        if verdict == FAITHFUL and explanation and (beyond := _beyond(predictor, explanation)):
            return None, beyond
        return verdict, statement
    return None, f"Maps by {method} were not tested. Of those by {tested['method']}, which were: {statement}"


def trusted(verdict: Verdict | None, statement: str) -> dict[str, Any]:
    """A verdict on heat maps, ready for JSON; None of both words where they were not tested."""
    return {"verdict": verdict, "faithful": verdict and verdict == FAITHFUL, "statement": statement}


def _beyond(predictor: Predictor, explanation: Explanation) -> str | None:
    """Why the verdict, which is on other maps, says nothing of this one; None where it does."""
    prediction = explanation.prediction
    if prediction.error is not None:
        return None
    if prediction.foreign:
        return "Maps of images of another kind were not tested."
    if explanation.of not in (*prediction.decision, None):
        return "Maps of classes that the model does not decide for were not tested."
    probabilities = np.array([[prediction.probabilities[name] for name in predictor.classes]])
    if "verdict" in (predictor.metadata.explanation or {}) and not predictor.metadata.task.positive(probabilities)[0]:
        return "Maps of negative answers were not tested: that nothing is there has no place."
    return None


def heat_on(
    predictor: Predictor, draw: Draw, image: np.ndarray, prepared: np.ndarray, of: str | None = None
) -> tuple[Prediction, str | None, np.ndarray | None]:
    """What the model says of a decoded image, the class explained, and its heat map on the image.

    Args:
        predictor: the model.
        draw: from :func:`drawing`.
        image, prepared: what :meth:`Predictor.prepare` is given, and what it gives.
        of: name of the class to explain. Default: the most probable.

    Returns:
        The prediction, without a path; the class's name; and ``[H, W]`` float32 in [0, 1]. Both are None where the model's
        answer is an error.

    Raises:
        UsageError: the model draws no such map.
    """
    prediction = replace(predictor.answers(prepared[None], [None])[0], note=predictor.note_on(image))
    if prediction.error is not None:
        return prediction, None, None
    name = of or max(prediction.probabilities, key=lambda name: prediction.probabilities[name])
    square = draw(prepared, predictor.classes.index(name))
    heat = np.clip(on_original(square, image.shape[0], image.shape[1], predictor.metadata.fit), 0.0, 1.0)
    return prediction, name, heat


def picture_of(predictor: Predictor, image: np.ndarray, heat: np.ndarray) -> Image.Image:
    """The heat map over the image, which is shown as bright as the model sees it."""
    return overlay(image if image.dtype == np.uint8 else np.minimum(image, np.uint16(predictor.metadata.white)), heat)


def _explained(predictor: Predictor, draw: Draw, one: Picture, of: str | None, place: Place) -> Explanation:
    try:
        image = predictor.reader([one]).read(0)
        prepared = predictor.prepare(image)
    except (UnreadableImage, UsageError) as error:
        return Explanation(Prediction(one.path, error=str(error), frame=one.number))
    answer, name, heat = heat_on(predictor, draw, image, prepared, of)
    prediction = replace(predictor.noted_of(answer, one), path=one.path, frame=one.number)
    if name is None or heat is None:
        return Explanation(prediction)
    stem, stated = place(one, name)
    picture, array = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.npy")
    shown = picture_of(predictor, image, heat)
    write_atomically(picture, lambda target: shown.save(target, "PNG", pnginfo=stated))
    write_atomically(array, lambda target: _save(target, heat))
    return Explanation(prediction, name, not heat.any(), picture, array)


def _free_place(
    folder: Path, suffix: tuple[str, ...], model: Path, taken: set[str], one: Picture, of: str
) -> tuple[Path, PngInfo]:
    """Where files of an image go, without ending, and what the picture says of itself.

    A name is passed over where it is taken by this call, or by an earlier one for another image or model.
    """
    number = [str(one.number)] if one.number else []
    stem = re.sub(r"[^\w.-]+", "-", ".".join([one.path.stem, *number, of, *suffix]))
    stem = stem.encode()[:_LONGEST_STEM].decode(errors="ignore")
    origin, stated = fingerprint(one.path.absolute(), model, *number), PngInfo()
    stated.add_text(_ORIGIN, origin)
    name = next(
        text
        for text in chain([stem], (f"{stem}-{n}" for n in count(2)))
        if text not in taken and _origin_of(folder / f"{text}.png") in (None, origin)
    )
    taken.add(name)
    return folder / name, stated


def _origin_of(picture: Path) -> str | None:
    """Which image and model a picture of an earlier call was made of; empty where it does not say, None without one."""
    if not picture.exists():
        return None
    try:
        with Image.open(picture) as opened:
            return str(opened.info.get(_ORIGIN, ""))
    except (OSError, ValueError, SyntaxError):  # whatever it is, it is not ours to write over
        return ""


def _by_torch(run: Path, method: Method, layer: str | None) -> Draw:
    need("torch", f"A map by {method}", "rise and score_cam do without.")
    import torch

    from stillroom.distillation.teachers import Panel
    from stillroom.explanation.heat_maps import heat_maps

    network = Run.open(run).student()
    if isinstance(network, Panel):
        raise UsageError(f"{run} has handed over an ensemble, whose members have maps of their own: it has none.")

    def draw(image: np.ndarray, number: int) -> np.ndarray:
        return heat_maps(network, torch.from_numpy(image[None]), [number], method=method, layer=layer)[0].numpy()

    return draw


def _save(target: Path, heat: np.ndarray) -> None:
    with target.open("wb") as file:
        np.save(file, heat)
