"""DICOM files among the images of a source: a row for every frame, patients by pseudonym, and what the audit is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from stillroom.data.dicom.grey import Display
from stillroom.data.dicom.headers import Header, read_header
from stillroom.data.dicom.patients import pseudonym, secret
from stillroom.data.listing import PICTURE_EXTENSIONS
from stillroom.data.table import Finding
from stillroom.progress import progress
from stillroom.settings.sections import DataSettings
from stillroom.settings.windows import parse_window
from stillroom.shown import counted

_MANY = 1000  # files whose headers take seconds
HASHED = ("patients_hashed", "patients_by_study", "patients_alike")
"""Codes of findings one of which stands where patients are pseudonyms."""
WHITE = 65535
"""What white is of DICOM images of more than 8 bits."""


_DOUBTS: dict[str, tuple[Literal["warning", "note"], Callable[[Header], bool], str]] = {
    "burned_in": (
        "warning",
        lambda one: one.burned_in == "YES",
        "say that words are burned into their pixels: such words may name patients, show in every picture of the report, and "
        "can be learnt in the place of the image.",
    ),
    "named_by_patient": (
        "warning",
        lambda one: one.named,
        "lie under a path that holds their PatientID or a part of the name. A run names images by their paths: rename them.",
    ),
    "oblong_pixels": (
        "warning",
        lambda one: one.oblong,
        "have pixels that are not square. They are shown as they are stored, as wide or tall as that makes them.",
    ),
    "burned_in_unsaid": (
        "note",
        lambda one: one.burned_in not in ("YES", "NO"),
        "do not say whether words are burned into their pixels (BurnedInAnnotation): look at some before you pass a run on.",
    ),
    "identified": (
        "note",
        lambda one: one.identified,
        "hold a name, a date of birth or the like. None of it gets into a run; whoever has the files has them.",
    ),
    "private_elements": (
        "note",
        lambda one: one.private,
        "hold private elements, which may identify a patient. None of them gets into a run.",
    ),
}
"""By code how bad it is, of which files it is said, and what."""

_ONE_FOR_ALL = " One window for all is set by --window."
_ONE_OF_THE_MODEL = (
    " The window goes with the model, and this one takes what each file says: for one window for all, train again with "
    "`stillroom distill SOURCE --window CENTER,WIDTH`."
)


@dataclass(frozen=True)
class Frames:
    """The images that are in a list of files.

    Attributes:
        of: ``[N]`` int64, the file that each image is in.
        numbers: ``[N]`` which frame of it, from 0; or empty where each is the first.
        ends: ``[N]`` what tells the images of one file apart in their ids: ``#1``, or nothing.
        patients: ``[N]`` str pseudonyms, ``""`` where unknown; None where there is no DICOM file.
        display: how they are shown.
        white, shown, window: see :class:`~stillroom.data.table.Table`.
        findings: for the audit.
    """

    of: np.ndarray
    numbers: tuple[int, ...]
    ends: tuple[str, ...]
    patients: np.ndarray | None
    display: Display
    white: int | None
    shown: tuple[str, ...]
    window: str
    findings: tuple[Finding, ...]


def frames_of(paths: Sequence[Path], settings: DataSettings, *, training: bool = True) -> Frames:
    """Look at the headers of those files that may be DICOM: all but those with the ending of another kind.

    Args:
        paths: the files.
        settings: ``window`` and ``patient_column`` are used.
        training: see :func:`stillroom.data.load.open_source`; otherwise the window is the model's, and cannot be chosen.

    Raises:
        UsageError: the secret for pseudonyms can be neither read nor made.
    """
    window = parse_window(settings.window)
    maybe = [path.suffix.lower() not in PICTURE_EXTENSIONS for path in paths]
    key = secret() if any(maybe) else b""
    headers: list[Header | None] = []
    with progress("reading DICOM headers", len(paths), enabled=sum(maybe) >= _MANY) as advance:
        for path, asked in zip(paths, maybe, strict=True):
            headers.append(read_header(path, window, key) if asked else None)
            advance()
    counts = [header.frames if header else 1 for header in headers]
    of = np.repeat(np.arange(len(paths)), counts)
    numbers = [frame for count in counts for frame in range(count)]
    found = [header for header in headers if header]
    wanted = bool(found) and settings.patient_column.casefold() != "none"
    patients, said = _patients(paths, headers, key) if wanted else (None, [])
    return Frames(
        of=of,
        numbers=tuple(numbers) if len(numbers) > len(paths) else (),
        ends=tuple(f"#{frame + 1}" if counts[file] > 1 else "" for file, frame in zip(of, numbers, strict=True)),
        patients=None if patients is None else np.array(patients)[of],
        display=Display(window),
        white=WHITE if found else None,
        shown=tuple(sorted({one.shown.by for one in found if one.shown})),
        window=_one_window(found),
        findings=(*said, *_findings(found, settings, len(paths), training)),
    )


def _patients(paths: Sequence[Path], headers: Sequence[Header | None], key: bytes) -> tuple[list[str], list[Finding]]:
    """A pseudonym of each file, of its study where no patient is named, and of itself where it names neither."""
    found = [header for header in headers if header]
    names, studies = {one.patient for one in found} - {""}, {one.study for one in found} - {""}
    said = []
    alike = len(names) == 1 < len(studies) and all(one.patient for one in found)
    if alike:
        text = f"All {counted(len(found), 'DICOM file')} have one PatientID, so that studies are taken for patients."
        said.append(Finding("warning", "patients_alike", text))
    elif missing := sum(not one.patient for one in found):
        text = f"{counted(missing, 'DICOM file')} name no patient: for these, studies are taken for patients."
        said.append(Finding("note", "patients_by_study", text))
    if any(one.patient for one in found) and not alike:
        said.append(
            Finding("note", "patients_hashed", "Patients are told apart by a keyed hash of their PatientID alone.")
        )
    return [
        ""
        if header is None
        else ("" if alike else header.patient) or header.study or pseudonym(f"file {path.absolute()}", key)
        for path, header in zip(paths, headers, strict=True)
    ], said


def _findings(found: Sequence[Header], settings: DataSettings, files: int, training: bool) -> list[Finding]:
    if not found:
        return []
    total = counted(len(found), "DICOM file")
    counts = {code: sum(map(holds, found)) for code, (_, holds, _) in _DOUBTS.items()}
    said = [Finding(_DOUBTS[code][0], code, f"{n:,} of {total} {_DOUBTS[code][2]}") for code, n in counts.items() if n]
    said += _on_windows(found, training)
    if files > len(found) and settings.window:
        text = f"{files - len(found):,} of {files:,} files are no DICOM: the window {settings.window} is not for them."
        said.append(Finding("note", "window_of_dicom", text))
    return said


def _one_window(found: Sequence[Header]) -> str:
    """The window that every one of these files names, if :func:`parse_window` can say it; else nothing."""
    named = {one.shown if one.alike else None for one in found}
    shown = named.pop() if len(named) == 1 else None
    if shown is None or shown.by != "window" or shown.function != "LINEAR" or shown.width <= 1:
        return ""
    return ",".join(f"{one:g}" if float(f"{one:g}") == one else repr(one) for one in (shown.centre, shown.width))


def _on_windows(found: Sequence[Header], training: bool) -> list[Finding]:
    """By what the images are shown, and whether that is one thing for all of them."""
    grey = [one.shown for one in found if one.shown]
    if not grey:
        return []
    kinds = Counter(one.by for one in grey)
    windows = Counter((one.centre, one.width) for one in grey if one.by == "window")
    words = []
    if kinds["asked"]:
        words.append(f"{kinds['asked']:,} by the window asked for, {grey[0].centre:g},{grey[0].width:g}")
    if windows:
        (centre, width), most = windows.most_common(1)[0]
        among = f"; the commonest of {len(windows):,} is {centre:g},{width:g} ({most:,})" if len(windows) > 1 else ""
        words.append(f"{kinds['window']:,} by their own window" + (among or f", {centre:g},{width:g}"))
    if kinds["table"]:
        words.append(f"{kinds['table']:,} by their own lookup table (VOI LUT)")
    if kinds["range"]:
        words.append(f"{kinds['range']:,} in the whole range of their bits, for they have no window")
    text = f"How grey DICOM files are shown: {', '.join(words)}."
    if len(kinds) > 1 or len(windows) > 1:
        text += _ONE_FOR_ALL if training else _ONE_OF_THE_MODEL
    return [Finding("note", "windows", text)]
