"""A test with readers: one page on which people read test images without and with the model's help. No torch.

The page holds pictures and the model's answers, but neither names nor truth; these stay in the run, in study.json beside it.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from stillroom.after.heat_map import Draw, default_method, drawing, trust
from stillroom.data.decoding import pixel_digest
from stillroom.data.geometry import drop_equal_channels, on_original
from stillroom.data.table import Table, UnreadableImage
from stillroom.deployment.prediction import Prediction
from stillroom.deployment.predictor import MODEL_FILE, Predictor
from stillroom.errors import UsageError, nearest
from stillroom.explanation.overlay import veil
from stillroom.files.atomic import write_atomically, write_json
from stillroom.files.cache import fingerprint
from stillroom.files.digests import sha256_of
from stillroom.files.places import require_folder_place
from stillroom.progress import progress
from stillroom.report.reading_page import reading_page
from stillroom.run.claims import alone_in
from stillroom.run.folder import Run
from stillroom.run.rows import rows_of
from stillroom.settings.methods import Method
from stillroom.task import Task

FOLDER, MANIFEST, PAGE = "reader_study", "study.json", "page.html"
Design = Literal["crossover", "sequential"]
LEAST_IMAGES = 10
LEAST_OF_EACH = 5
"""Images with and without the finding, below which no AUC is worth its interval."""
_MAP_SIDE = 128


@dataclass(frozen=True)
class Question:
    """What readers are asked of every image.

    Attributes:
        options: the answers to choose from, as named on the page.
        finding: the class that is looked for, the second option then; None where one of several classes is chosen.
    """

    options: tuple[str, ...]
    finding: str | None

    def truth(self, task: Task, targets: np.ndarray) -> np.ndarray:
        """``[N]`` index of the right option."""
        if self.finding is None:
            return np.asarray(targets, dtype=np.int64)
        return task.one_hot(targets)[:, task.classes.index(self.finding)].astype(np.int64)

    def shares(self, task: Task, probabilities: np.ndarray) -> np.ndarray:
        """``[N, K]`` probabilities of classes to ``[N, O]`` of the options."""
        if self.finding is None:
            return probabilities
        there = probabilities[:, task.classes.index(self.finding)]
        return np.stack([1 - there, there], axis=1)

    def decided(self, task: Task, probabilities: np.ndarray) -> np.ndarray:
        """``[N]`` index of the option that the model decides for."""
        return self.truth(task, task.decide(probabilities))


@dataclass(frozen=True)
class Made:
    """A page that was made.

    Attributes:
        page: the file for the readers.
        manifest: what stays in the run: which image is which.
        content: of the manifest.
    """

    page: Path
    manifest: Path
    content: dict[str, Any]


def question_of(task: Task, of: str | None) -> Question:
    """What to ask. Raises UsageError where ``of`` is no class, or a multi-label task leaves open which label."""
    if of is not None and of not in task.classes:
        raise UsageError(
            f"The model knows no class {of!r}.{nearest(of, task.classes)} Classes: {', '.join(task.classes)}."
        )
    if of is None and not task.exclusive:
        raise UsageError(
            "An image may bear several labels: say by --of which one the readers look for. "
            f"Labels: {', '.join(task.classes)}."
        )
    if of is None:
        return Question(task.classes, task.positive_class)
    if task.kind == "binary":
        return Question(tuple(sorted(task.classes, key=lambda name: name == of)), of)
    return Question((f"not {of}", of), of)


def make_page(
    run: Run,
    images: int = 60,
    *,
    of: str | None = None,
    design: Design = "crossover",
    seed: int = 0,
    side: int = 1024,
    source: str | Path | None = None,
    show_progress: bool = True,
) -> Made:
    """Draw a sample of test images, and write the page on which readers read it; the same call writes the same page.

    Args:
        run: a finished run.
        images: how many, one a patient where patients are known, in equal parts of the answers as far as there are such.
        of: the class that is looked for. Default: a binary task's positive class; else readers choose among all classes.
        design: ``crossover``: two sittings, each with help for the half that has none in the other. ``sequential``: every
            image first without help, then at once with it.
        seed: draws images, halves and their order.
        side: longest side of the pictures in pixels; larger images are made smaller.
        source: where the run's images are now, if they were moved.
        show_progress: show a bar.

    Raises:
        UsageError: too few test images, images that are not those of the run, no such class, or another process is at work
            in the run folder.
    """
    if images < LEAST_IMAGES:
        raise UsageError(f"A test with readers needs at least {LEAST_IMAGES} images, got --images {images}.")
    if side < 16:
        raise UsageError(f"--side must be at least 16 pixels, got {side}.")
    with alone_in(run.path):
        return _made(run, images, question_of(run.task, of), design, seed, side, source, show_progress)


def _made(
    run: Run, number: int, question: Question, design: Design, seed: int, side: int, source: Any, show_progress: bool
) -> Made:
    predictor, frame = run.predictor(), run.predictions()
    task = predictor.task
    test = frame[frame["split"] == "test"].reset_index(drop=True)
    truth = question.truth(task, task.parse(["" if name is None else str(name) for name in test["target"]]))
    patients = test["patient"].fillna("").astype(str).to_numpy()
    chosen, halves = draw_sample(truth, patients, number, len(question.options), seed)
    _require_both(question, truth[chosen])
    table = rows_of(run, frame["id"].astype(str).tolist(), source)
    ids = test["id"].astype(str).to_numpy()[chosen]
    digests_then = test["digest"].astype(str).to_numpy() if "digest" in test else np.full(len(test), "")
    read, digests = _pixels(table, ids, digests_then[chosen], run)

    study = fingerprint(digests, halves.tolist(), question.options, design, side, sha256_of(run.path / MODEL_FILE))[:8]
    folder = run.path / FOLDER / study
    require_folder_place(folder)
    entries, pages = [], []
    method = default_method(predictor, run.path)
    draw = _drawing(predictor, run, method)
    with progress("readers", len(read), enabled=show_progress) as advance:
        for place, image in enumerate(read):
            shown, answer = _shown(predictor, question, draw, image, side)
            pages.append({"image": place + 1, "half": int(halves[place])} | shown)
            entries.append(
                {"image": place + 1, "id": str(ids[place]), "digest": digests[place], "half": int(halves[place])}
                | answer
            )
            advance()
    page = reading_page(
        {
            "study": study,
            "design": design,
            "options": list(question.options),
            "finding": question.finding,
            "images": pages,
        },
        title=str(run.manifest.get("data") or run.manifest.get("source")).split(";")[0],
        verdict=trust(predictor, method)[0],
        synthetic=predictor.synthetic,
    )
    write_atomically(folder / PAGE, lambda target: target.write_text(page, encoding="utf-8"))
    content = {
        "format": 1,
        "study": study,
        "design": design,
        "seed": seed,
        "side": side,
        "options": list(question.options),
        "finding": question.finding,
        "images": entries,
    }
    write_json(folder / MANIFEST, content)
    return Made(folder / PAGE, folder / MANIFEST, content)


def draw_sample(
    truth: np.ndarray, patients: np.ndarray, number: int, options: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which images are read, in the order in which the page numbers them, and the half that each belongs to.

    Args:
        truth: ``[N]`` index of the right option.
        patients: ``[N]`` ids; ``""`` where unknown. No patient is shown twice, so that images are independent.
        number: how many.
        options: how many answers there are; each gets as equal a share as its images allow.
        seed: draws all.

    Returns:
        ``[number]`` rows, and ``[number]`` of 0 and 1: halves of every option's images, so that neither tells the truth.

    Raises:
        UsageError: there are not so many images of different patients.
    """
    rng = np.random.default_rng(seed)
    met: set[str] = set()
    piles: list[list[int]] = [[] for _ in range(options)]
    for row in rng.permutation(len(truth)):
        if patients[row] not in met:
            piles[truth[row]].append(int(row))
        met |= {patients[row]} - {""}
    there = sum(map(len, piles))
    if there < number:
        whose = " of different patients" if met else ""
        raise UsageError(
            f"The test split has {there} images{whose}, so {number} cannot be read: give --images {there}."
        )
    taken = [0] * options
    while sum(taken) < number:  # one more to the option with the fewest that has any left; ties by chance
        open_ = [place for place in range(options) if taken[place] < len(piles[place])]
        least = min(taken[place] for place in open_)
        taken[int(rng.choice([place for place in open_ if taken[place] == least]))] += 1
    rows, halves, first = [], [], 0
    for pile, count in zip(piles, taken, strict=True):
        rows += pile[:count]
        halves += [(place + first) % 2 for place in range(count)]
        first += count
    order = rng.permutation(number)
    return np.array(rows)[order], np.array(halves)[order]


def _require_both(question: Question, truth: np.ndarray) -> None:
    if question.finding is None:
        return
    for place, option in enumerate(question.options):
        if (count := int((truth == place).sum())) < LEAST_OF_EACH:
            raise UsageError(
                f"Only {count} of the {len(truth)} images drawn from the test split are {option!r}; a test with readers "
                f"needs {LEAST_OF_EACH} of each answer."
            )


def _pixels(table: Table, ids: np.ndarray, expected: np.ndarray, run: Run) -> tuple[list[np.ndarray], list[str]]:
    """The images as decoded, and the digests of their pixels, which must be those that the run was tested on."""
    rows = {name: int(row) for name, row in zip(table.ids.tolist(), table.rows, strict=True)}
    images, digests = [], []
    for name, digest in zip(ids.tolist(), expected.tolist(), strict=True):
        if name not in rows:
            raise UsageError(f"{table.source} has no image {name!r}, which {run.path} was tested on.")
        try:
            image = drop_equal_channels(table.reader.read(rows[name]))
        except UnreadableImage as error:
            raise UsageError(
                f"{name}, which {run.path} was tested on, cannot be read: {str(error).rstrip('.')}."
            ) from None
        found = pixel_digest(image)
        if digest and found != digest:
            raise UsageError(f"{name} is another image by now than the one that {run.path} was tested on.")
        images.append(image)
        digests.append(found)
    return images, digests


def _shown(
    predictor: Predictor, question: Question, draw: Draw | None, image: np.ndarray, side: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page shows of an image, and what study.json keeps of the model's answer."""
    task = predictor.task
    prepared = predictor.prepare(image)
    said = predictor.answers(prepared[None], [None])[0]
    if said.error is not None:
        raise UsageError(f"The model has no answer to one of the images: {said.error}.")
    probabilities = np.array([[said.probabilities[name] for name in task.classes]])
    shares = question.shares(task, probabilities)[0]
    decided = int(question.decided(task, probabilities)[0])
    refused = bool(said.foreign)
    heat = None if refused or draw is None else _map(predictor, question, draw, prepared, image.shape, said, decided)
    white = predictor.metadata.white
    grey = image if image.dtype == np.uint8 else np.minimum(image, white).astype(np.float64) * (255 / white)
    picture = Image.fromarray(np.rint(grey).astype(np.uint8))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    page: dict[str, Any] = {
        "width": picture.width,
        "height": picture.height,
        "picture": _data_uri(picture),
        "help": None,
    }
    if not refused:
        page["help"] = {
            "decided": decided,
            "shares": [round(float(value), 4) for value in shares],
            "possible": _possible(question, said),
            "map": None if heat is None else _data_uri(heat[1]),
            "of": None if heat is None else heat[0],
        }
    return page, {
        "shares": [float(value) for value in shares],
        "decided": decided,
        "refused": refused,
        "mapped": heat is not None,
    }


def _drawing(predictor: Predictor, run: Run, method: Method) -> Draw | None:
    """What draws the heat maps; None of a model that has none."""
    if predictor.metadata.layer is None or "members" in predictor.metadata.details:
        return None
    return drawing(predictor, run.path, method)


def _possible(question: Question, said: Prediction) -> list[str]:
    """Several options that the model cannot rule out, where it has a rule for such sets."""
    possible = [name for name in said.possible or () if name in question.options]
    return possible if len(possible) > 1 and set(question.options) == set(said.probabilities) else []


def _map(
    predictor: Predictor,
    question: Question,
    draw: Draw,
    prepared: np.ndarray,
    shape: tuple[int, ...],
    said: Prediction,
    decided: int,
) -> tuple[str, Image.Image] | None:
    """The class that the heat map explains, which is the one decided for, and the map as a veil to lay over the picture."""
    if question.finding is not None and not decided:
        return None  # that nothing is there has no place
    of = question.finding or max(said.probabilities, key=lambda name: said.probabilities[name])
    square = draw(prepared, predictor.classes.index(of))
    height, width = shape[:2]
    scale = min(1.0, _MAP_SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return of, veil(np.clip(on_original(square, *size, predictor.metadata.fit), 0.0, 1.0))


def _data_uri(picture: Image.Image) -> str:
    """A picture with nothing in it but pixels."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
