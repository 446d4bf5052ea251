"""What is well and what is not: the installation, the cache, weights at hand, and a run's files by their digests.

Changes nothing. Each check is one line, with what to do where something is wrong.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from stillroom.after.checks import Check, State, in_a_line
from stillroom.after.installation import installation, trains
from stillroom.deployment.exporting_again import export_again, precision_named
from stillroom.errors import StillroomError, UsageError
from stillroom.extras import need
from stillroom.files.cache import cache_root
from stillroom.files.digests import LEDGER
from stillroom.files.reading import read_json
from stillroom.progress import size_in_words
from stillroom.run.claims import cut_off, digests_lost, require_run, unlisted
from stillroom.run.epochs import in_words, lost_epochs, parts_of
from stillroom.run.files import Checked, files_of_cache, files_of_run

MODEL_FILE, REPORT, IMAGES = "student.onnx", "report.html", "images.parquet"
_SHOWN = 5
_PASSING = re.compile(r"(^|/)checkpoints/")
"""What a run writes on its way and removes."""
_NETWORK = re.compile(r"(^|/)model\.(json|safetensors)$")
_LASTING = re.compile(
    rf"(^|/)(settings\.yaml|plan\.yaml|manifest\.json|images\.parquet|[^/]+\.jsonl)$|{_NETWORK.pattern}"
)
"""What an unfinished run reads when it goes on. Everything else it makes again, where it is damaged."""
_LITTLE = 2e9
"""Bytes free on a disk below which a store or bank may not fit."""


def examine(run: Path | None = None, weights: Path | None = None) -> Iterator[Check]:
    """Look at everything, one check after the other, as they are made.

    Args:
        run: a run folder, finished or not, or an exported .onnx file; None looks at none.
        weights: a file or folder of pretrained weights; None looks into the hub's cache alone.

    Raises:
        UsageError: ``run`` is neither, or ``weights`` is not there.
    """
    if run is not None:
        _require_run(run)
        if run.is_dir():
            need(
                "torch", "Looking through a run folder", f"Of its {MODEL_FILE} alone, `stillroom doctor` tells without."
            )
    if weights is not None:
        need("torch", "Looking through weights")
    if weights is not None and not weights.expanduser().exists():
        raise UsageError(f"No weights at {weights}: there is no such file or folder.")
    yield from installation()
    yield from cache()
    if trains():
        yield from weights_here(weights)
    if run is not None:
        yield from run_folder(run)


# -- cache ----------------------------------------------------------------------------------------------------------
def cache() -> Iterator[Check]:
    """Where the cache is, whether it can be written to, what it holds, and which of its entries are damaged."""
    root, part = cache_root(), "cache"
    place = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        advice = "Set STILLROOM_CACHE to a folder that can be written to."
        yield Check(part, "wrong", f"{root} cannot be written to.", advice)
        return
    free = shutil.disk_usage(place).free
    state: State = "note" if free < _LITTLE else "well"
    advice = "Make room, or set STILLROOM_CACHE to a folder on a larger disk." if state == "note" else ""
    yield Check(
        part, state, f"{root}: {size_in_words(_bytes_in(root))}, {size_in_words(free)} free on its disk.", advice
    )
    entries: dict[Path, set[str]] = {}
    unfit: dict[Path, Checked] = {}
    for checked in files_of_cache(root):
        entry = root.joinpath(*checked.path.relative_to(root).parts[:2])
        entries.setdefault(entry, set()).add(checked.state)
        if checked.state in ("damaged", "missing"):
            unfit.setdefault(entry, checked)
    for checked in unfit.values():
        text = f"{checked.path.relative_to(root)} is {checked.state}."
        yield Check(part, "note", text, "It is built again when it is next needed; nothing need be done.")
    if entries and not unfit:
        unknown = sum("no digest" in states for states in entries.values())
        older = f", {unknown} of them from before digests were kept, which nothing is known of" if unknown else ""
        yield Check(part, "well", f"{len(entries)} entries, none damaged{older}.")


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


# -- weights --------------------------------------------------------------------------------------------------------
def weights_here(given: Path | None) -> Iterator[Check]:
    """Which pretrained weights are at hand: those in the hub's cache, and each file of a folder, read through.

    Args:
        given: a file or folder that is there; None looks into the hub's cache alone.
    """
    part = "weights"
    from stillroom.models import hub
    from stillroom.models.catalogue import short_list
    from stillroom.models.origins.timm_models import FILES
    from stillroom.models.zoo import specification

    published = {name: source for name in short_list() if (source := specification(name).hub)}
    cached = [name for name, source in published.items() if any(hub.is_cached(source, file=file) for file in FILES)]
    if cached:
        yield Check(part, "well", f"In the hub's cache: {', '.join(cached)}.")
    else:
        text = "None of the listed networks' weights is in the hub's cache."
        yield Check(part, "note", text, "They are downloaded when first asked for, or given by --weights.")
    if given is None:
        return
    from stillroom.models.stored import is_weights

    given = given.expanduser()
    files = sorted(path for path in given.rglob("*") if path.is_file()) if given.is_dir() else [given]
    readable = [file for file in files if is_weights(file)]
    if not readable:
        yield Check(
            part, "wrong", f"{given} holds no file of weights.", "Its files end in .safetensors, .pth, .pt or .bin."
        )
    for file in readable:
        yield _weights_file(part, file)


def _weights_file(part: str, file: Path) -> Check:
    from stillroom.models.stored import mapped

    try:
        tensors = mapped(file)
        unfit = next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)
    except StillroomError as error:
        return Check(part, "wrong", str(error), "Download or copy it again.")
    if unfit is not None:
        return Check(
            part, "wrong", f"{file} holds numbers that are not finite, the first in {unfit}.", "Download it again."
        )
    count = sum(tensor.numel() for tensor in tensors.values())
    return Check(part, "well", f"{file}: {len(tensors)} tensors, {count / 1e6:.1f} M numbers, all finite.")


# -- a run ----------------------------------------------------------------------------------------------------------
def run_folder(path: Path) -> Iterator[Check]:
    """A run's files by their digests, whether it has finished, and whether its student answers.

    Args:
        path: a run folder, or an exported .onnx file, which carries its own digest.
    """
    if path.suffix == ".onnx":
        yield _answers(str(path), path, "Copy it again from the run that exported it.")
        return
    from stillroom.run.folder import how_to_resume
    from stillroom.run.networks import made_again

    part, finished = str(path), (path / REPORT).exists()
    if not finished:
        yield Check(part, "note", "The run has not finished.", how_to_resume(path))
    found = {checked.path.relative_to(path).as_posix(): checked for checked in files_of_run(path)}
    for name, checked in found.items():
        text = f"{name} was changed or damaged after it was written."
        if checked.state == "damaged" and checked.remade:
            yield Check(
                part, "note", text, "The run falls back to the one before when it goes on; nothing need be done."
            )
        elif checked.state == "damaged" and not finished and (not _LASTING.search(name) or made_again(checked.path)):
            yield Check(part, "note", text, "It is made again when the run goes on; nothing need be done.")
        elif checked.state == "damaged":
            yield Check(part, "wrong", text, _remedy(path, name, finished))
        elif checked.state == "unreadable":
            advice = "Give yourself the right to read it, or copy the run to a disk that does not fail."
            yield Check(part, "wrong", f"{name} cannot be read.", advice)
        elif checked.state == "missing" and _is_missed(path, name, finished):
            text = f"{name} was written and is gone."
            if precision_named(name):
                yield Check(part, "note", text, f"Nothing else needs it; {_again(path, name)} writes it anew.")
            else:
                yield Check(part, "wrong", text, _remedy(path, name, finished))
    damaged = {name for name, checked in found.items() if checked.state in ("damaged", "unreadable")}
    yield from _unreadable(path, damaged)
    if digests_lost(path):
        found = {}
        text = f"{LEDGER} is gone or was emptied: whether files of this run were changed cannot be told."
        yield Check(part, "wrong", text, "Put back a copy of it, if there is one.")
    elif names := unlisted(path):
        text = f"{LEDGER} {cut_off(names)}: whether they were changed cannot be told."
        yield Check(part, "wrong", text, "Put back a copy of the list, if there is one.")
    yield from _lost_epochs(path)
    states = [checked.state for checked in found.values()]
    whole, unknown = states.count("whole"), states.count("no digest")
    if whole:
        yield Check(part, "well", f"{whole} files are as they were written.")
    if unknown and not (path / LEDGER).exists():
        text = f"This run was made before files had digests: whether {unknown} of them were changed is not known."
        yield Check(part, "note", text)
    elif unknown:
        names = [name for name, checked in found.items() if checked.state == "no digest"]
        few = ", ".join(names[:_SHOWN]) + (f" and {unknown - _SHOWN} more" if unknown > _SHOWN else "")
        were = "file was" if unknown == 1 else "files were"
        yield Check(part, "note", f"{unknown} {were} not written by this run: {few}.")
    if (path / MODEL_FILE).is_file() and (finished or MODEL_FILE not in damaged):
        yield _answers(part, path / MODEL_FILE, _remedy(path, MODEL_FILE, finished))


def _lost_epochs(run: Path) -> Iterator[Check]:
    for folder in parts_of(run):
        with suppress(UsageError, OSError):  # of a file that cannot be read is told already
            if lost := lost_epochs(folder):
                yield Check(str(run), "wrong", f"{in_words(folder, lost)}.", "Put back a copy of it, if there is one.")


def _is_missed(run: Path, name: str, finished: bool) -> bool:
    """Whether a file that the ledger names should be there. A kill may have come between its line and its name."""
    if finished:
        return not _PASSING.search(name)
    # The manifest tells of the data once images.parquet stands.
    return name == IMAGES and "data_fingerprint" in _values(run / "manifest.json")


def _unreadable(run: Path, told: set[str]) -> Iterator[Check]:
    """Those of the files that people and every verb read which cannot be read, but for those told of already."""
    from stillroom.settings.whole import read_settings

    readers = {
        "settings.yaml": read_settings,
        **dict.fromkeys(("manifest.json", "metrics.json", "audit.json"), read_json),
    }
    for name, read in readers.items():
        if name in told or not (run / name).exists():
            continue
        try:
            read(run / name)
        except UsageError as error:
            yield Check(str(run), "wrong", str(error), _remedy(run, name))


def _values(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except (UsageError, FileNotFoundError):
        return {}


def _answers(part: str, file: Path, remedy: str) -> Check:
    """Whether an exported file opens, which checks its own digest, and answers to a grey image."""
    import numpy as np

    from stillroom.deployment.predictor import Predictor

    try:
        predictor = Predictor.load(file)
        side = predictor.metadata.size
        (answer,) = predictor.predict(np.full((side, side), 127, dtype=np.uint8))
    except StillroomError as error:
        return Check(part, "wrong", str(error), remedy)
    except Exception as error:  # ONNX Runtime raises a class of its own for each of its codes
        return Check(part, "wrong", f"{file} does not answer: {in_a_line(error)}.", remedy)
    if answer.error is not None or not np.isfinite(list(answer.probabilities.values())).all():
        return Check(part, "wrong", f"{file} answers a grey image with {answer.error or 'no numbers'}.", remedy)
    return Check(part, "well", f"{file.name} opens and answers ({len(answer.probabilities)} classes, {side} px).")


def _remedy(run: Path, name: str, finished: bool = True) -> str:
    if name == MODEL_FILE:
        return f"Export it again: {_again(run, name)}."
    if precision_named(name):
        return f"Export it again: {_again(run, name)}; or do without: `rm {shlex.quote(str(run / name))}`."
    if name == "settings.yaml":
        return "Put back a copy of it: manifest.json holds the same, under `settings`."
    if _NETWORK.search(name) and not finished:
        description = shlex.quote(str((run / name).with_name("model.json")))
        return f"Put back a copy of it, or `rm {description}` and go on: that network is trained again."
    return "Put back a copy of it, or make the run again: `stillroom distill --settings " + (
        f"{shlex.quote(str(run / 'settings.yaml'))}`."
    )


def _again(run: Path, name: str) -> str:
    return export_again(run / name, shlex.quote(str(run)))


def _require_run(path: Path) -> None:
    if path.suffix != ".onnx" or path.is_dir():
        require_run(path)
    elif not path.is_file():
        raise UsageError(f"There is no file {path}.")


def summary(checks: list[Check]) -> dict[str, Any]:
    """All checks as JSON has them, with the worst state on top."""
    worst = max((check.state for check in checks), key=("well", "note", "wrong").index, default="well")
    return {"state": worst, "checks": [check.to_dict() for check in checks]}
