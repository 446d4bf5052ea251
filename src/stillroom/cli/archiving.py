"""`--dicom`: answers and heat maps as DICOM objects, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.errors import PartlyDone, UsageError

if TYPE_CHECKING:
    from stillroom.after.heat_map import Explanation
    from stillroom.deployment.dicom_out.pictures import Drawn
    from stillroom.deployment.dicom_out.writing import Written
    from stillroom.deployment.prediction import Prediction
    from stillroom.deployment.predictor import Predictor
    from stillroom.explanation.claims import Verdict
    from stillroom.settings.methods import Method

_NAMES = {"SR": "report", "SC": "overlay", "PM": "parametric map"}
_NAMED = 3  # images that a note names; more are counted
_LACKING = 5  # of those without the objects that they should have


def require_place(out: Path | None, images: Sequence[Path]) -> None:
    """Raises UsageError where objects are asked for and cannot, or must not, be written to ``out``."""
    if out is not None:
        from stillroom.deployment.dicom_out.writing import require_dicom_place

        require_dicom_place(out, images)


def write_objects(
    predictor: Predictor,
    answers: Sequence[Prediction],
    out: Path | None,
    drawn: Callable[[int], Drawn | None] = lambda _: None,
) -> Written | None:
    """See :func:`~stillroom.deployment.dicom_out.writing.write_answers`; None where no objects are asked for."""
    if out is None:
        return None
    from stillroom.deployment.dicom_out.writing import write_answers

    return write_answers(predictor, answers, out, drawn)


def drawn_maps(
    found: Sequence[Explanation], trusts: Sequence[tuple[Verdict | None, str]], method: Method
) -> Callable[[int], Drawn | None]:
    """What gives the heat map of an explanation by its number, read from the files that were written of it."""

    def drawn(number: int) -> Drawn | None:
        import numpy as np
        from PIL import Image

        from stillroom.deployment.dicom_out.pictures import Drawn

        one = found[number]
        if one.picture is None or one.array is None or one.of is None:
            return None
        overlay = np.asarray(Image.open(one.picture).convert("RGB"))
        frame = (one.prediction.frame or 1) - 1
        return Drawn(frame, one.of, method, trusts[number][1], overlay, np.load(one.array))

    return drawn


def say_what_was_written(written: Written | None, out: Path | None) -> None:
    """How many objects there are, and of which images one is missing that could be expected."""
    from stillroom.cli import console

    if written is None:
        return
    if written.files:
        counts = [f"{count} {_NAMES[kind]}{'s' * (count != 1)}" for kind, count in written.counts.items() if count]
        already = f", {written.already} of them there already" if written.already else ""
        console.say(f"{out}: {', '.join(counts)} for research use, with the patients' identity{already}.")
    if written.passed_over:
        console.say(f"No DICOM files, so without objects: {_some(written.passed_over)}.")
    if written.without_place:
        console.say(
            "Without a parametric map, for only CT, MR and PET files that say how they lie in the patient have one: "
            f"{_some(written.without_place)}."
        )
    for name, keywords in written.left_empty.items():
        console.say(f"{name}: not valid, and left empty in its objects: {', '.join(keywords)}.")


def lacking(written: Written | None, out: Path | None) -> str:
    """Which answered images lack objects that should be there, the first with its reason; empty where none does."""
    if written is None or not written.failed:
        return ""
    names = list(written.failed)
    images = "1 image lacks" if len(names) == 1 else f"{len(names)} images lack"
    more = f"; the others are {_some(names[1:], _LACKING - 1)}" if len(names) > 1 else ""
    return f"{images} objects in {out}; the first is {names[0]}: {written.failed[names[0]]}{more}."


def require_all_written(written: Written | None, out: Path | None) -> None:
    """Raises UsageError where no DICOM file was among the images, PartlyDone where an object could not be made."""
    if written is None:
        return
    if text := lacking(written, out):
        raise PartlyDone(text)
    if not written.files and written.passed_over:
        raise UsageError(f"None of the images is a DICOM file, so nothing was written to {out} (--dicom).")


def _some(names: Sequence[str], most: int = _NAMED) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
