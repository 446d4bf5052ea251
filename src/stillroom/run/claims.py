"""Who may write in a run folder: one process at a time. And how a new one appears: whole, or not at all.

A run is made in a hidden folder beside its place, which takes its name once all is in it that a run must have. The folder's
lock tells whether somebody is at work: in a folder whose lock nobody holds, what is temporary was left by a process that was
killed, and is removed.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, count
from pathlib import Path

from stillroom.errors import StorageError, UsageError
from stillroom.files.atomic import TEMPORARY, sweep, sync_folder
from stillroom.files.digests import LEDGER, keeps_digests, mend_ledger, read_lines
from stillroom.files.locks import Busy, Lock, take
from stillroom.files.places import require_folder_place

SETTINGS, MANIFEST, LOCK = "settings.yaml", "manifest.json", ".lock"
_MAKING = ".making"
_BEFORE_THE_MANIFEST = {LOCK, LEDGER, SETTINGS, "plan.yaml"}
"""What may stand in a folder that was there already, where a run was being made in it as the process was killed."""
_OF_EVERY_RUN = (
    *(SETTINGS, MANIFEST, "images.parquet", "audit.json", "metrics.json", "predictions.parquet", "student.onnx"),
    *("features.npz", "gallery.npz", "density.npz", "foreign_scores.npz", "MODEL_CARD.md", "report.html"),
    *(f"{role}/model.{kind}" for role in ("student", "control", "teacher") for kind in ("safetensors", "json")),
)
_PATIENCE_S = 0.5
"""Whoever sweeps a folder that was left holds its lock for a moment."""


def is_run(path: Path) -> bool:
    """Whether a run folder stands there."""
    return (path / SETTINGS).is_file() and (path / MANIFEST).is_file()


def run_of(folder: Path) -> Path | None:
    """The run folder that a folder is, or is nearest below; None where it is of no run."""
    return next((above for above in (folder, *folder.absolute().parents) if is_run(above)), None)


def require_run(path: Path) -> None:
    """Raises UsageError where no run folder stands."""
    if not is_run(path):
        raise UsageError(
            f"{path} is not a run folder: it has no settings.yaml and manifest.json."
            if path.exists()
            else f"There is no run folder {path}."
        )


def digests_lost(path: Path) -> bool:
    """Whether a run's list of digests is gone or was emptied, although its manifest says that it keeps one.

    settings.yaml is the first file of every run, so that the list names it as long as it is whole.
    """
    lines = read_lines(path / LEDGER, checked=True)
    named = any(line.get("file") == SETTINGS for line in lines.entries)
    return not named and not lines.damaged and keeps_digests(path / MANIFEST)


def unlisted(path: Path) -> list[str]:
    """Files of every run that stand in this one, and that its list of digests does not name: its end was cut off.

    A line is on the disk before its file has its name, so that no kill leaves a file without one. Nothing is told of a list
    that is gone, that a line of is damaged, or that the run never kept.
    """
    lines = read_lines(path / LEDGER, checked=True)
    if lines.damaged or digests_lost(path) or not keeps_digests(path / MANIFEST):
        return []
    named = {line.get("file") for line in lines.entries}
    return [name for name in _OF_EVERY_RUN if name not in named and (path / name).is_file()]


def cut_off(names: list[str]) -> str:
    """What :func:`unlisted` found, as the predicate of a sentence about the list."""
    return (
        f"does not name {', '.join(names)}, which stand{'s' * (len(names) == 1)} in the run: lines were cut off its end"
    )


def require_vacant(path: Path) -> None:
    """Raises UsageError where no run folder can be made: something stands there, or the place cannot be written to."""
    if os.path.lexists(path) and (not path.is_dir() or not _is_empty(path)):
        _refuse_taken(path)
    require_folder_place(path)


def numbered(base: Path) -> Iterator[Path]:
    """``base``, ``base-2``, ``base-3``..."""
    return chain([base], (base.with_name(f"{base.name}-{number}") for number in count(2)))


@contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Inside this block no other process writes in the run folder; what killed ones left half-written in it is removed.

    Raises:
        UsageError: another process is at work there, which the message names.
        StorageError: the folder cannot be written to.
    """
    lock = _taken(path / LOCK, path)
    try:
        sweep(path.rglob(".*.tmp"), untouched_s=0.0)
        mend_ledger(path)
        yield
    finally:
        lock.release()


@contextmanager
def alone_where(folder: Path) -> Iterator[None]:
    """:func:`alone_in` the run that the folder is of, if it is of one."""
    run = run_of(folder)
    with nullcontext() if run is None else alone_in(run):
        yield


class Claim:
    """A place for a new run that nobody else can take.

    Attributes:
        path: where the run will stand.
        folder: where its first files are to be written, the manifest last. Where ``path`` was there before, as an empty
            folder, it is that: a disk may be mounted there, and would not be renamed.
    """

    def __init__(self, path: Path) -> None:
        require_vacant(path)
        self.path = path
        self.folder = path if path.is_dir() else path.with_name(f".{path.name}{_MAKING}")
        self._stands = False
        self._made = [folder for folder in self.folder.absolute().parents if not folder.exists()]
        self._lock = self._locked()
        try:
            require_vacant(path)  # now that nobody else can change it
            _clear(self.folder)  # of what a killed process left
        except BaseException:
            self.release()
            raise

    def stand(self) -> None:
        """The folder holds what a run must have: give it its name.

        Raises:
            UsageError: something has come to stand there meanwhile.
        """
        if self.folder != self.path:
            if os.name == "nt":  # no folder is renamed there with an open file in it
                self._lock.release()
            try:
                self.folder.rename(self.path)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    _refuse_taken(self.path)
                raise
            sync_folder(self.path.parent)
            if os.name == "nt":
                self._lock = _taken(self.path / LOCK, self.path)
            self._lock.file, self.folder = self.path / LOCK, self.path
        self._stands = True

    def release(self) -> None:
        """Let others into the folder. Where no run came to stand, nothing is left."""
        if not self._stands and self.folder.is_dir():
            _clear(self.folder)
        self._lock.release()
        if not self._stands:
            for folder in (self.folder, *self._made) if self.folder != self.path else ():
                with suppress(OSError):
                    folder.rmdir()

    def _locked(self) -> Lock:
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            for other in self.folder.parent.glob(f".*{_MAKING}"):
                if other != self.folder:
                    _sweep(other)
            while True:
                self.folder.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):  # swept by another process just now
                    return _taken(self.folder / LOCK, self.path)
        except OSError as error:
            raise StorageError(
                f"No run folder could be made at {self.path}: {error.strerror or error}. Choose another --out."
            ) from error


@contextmanager
def claimed(places: Path | Iterable[Path]) -> Iterator[Claim]:
    """A place for a new run: the one given, or the first of several where nothing stands and no other process makes a run.

    Inside the block, and as long as it lasts in the run that comes to stand there, no other process can write.

    Raises:
        UsageError: the one place is taken, or cannot be written to.
        StorageError: the disk is full.
    """
    claim = Claim(places) if isinstance(places, Path) else _first_free(places)
    try:
        yield claim
    finally:
        claim.release()


def _first_free(places: Iterable[Path]) -> Claim:
    for place in places:
        if place.exists():
            continue
        try:
            return Claim(place)
        except UsageError as error:
            if not isinstance(error, _InUse) and not place.exists():
                raise
    raise UsageError("None of the places for a run folder is free. Choose one by --out.")


class _InUse(UsageError):
    """Another process is at work there."""


def _taken(file: Path, path: Path) -> Lock:
    """The lock. Raises :class:`_InUse`, naming the holder and the run's ``path``."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return take(file)
        except Busy as busy:
            if time.monotonic() > until or busy.holder.pid == os.getpid():
                raise _InUse(
                    f"{path} is in use by {busy.holder}: wait until it ends, or stop it. One run is the work of one process."
                ) from None
            time.sleep(_PATIENCE_S / 10)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"{path} cannot be written to: {error.strerror or error}.") from error


def _refuse_taken(path: Path) -> None:
    if is_run(path):
        with suppress(StorageError, OSError):  # of a run that is under way that is what matters
            _taken(path / LOCK, path).release()
    hint = f"go on with it by `stillroom distill --resume {shlex.quote(str(path))}`, or " if is_run(path) else ""
    raise UsageError(f"{path} exists already: {hint}choose another --out.")


def _is_empty(folder: Path) -> bool:
    """Whether nothing stands there, or what a killed process left of a run that it was making there."""
    names = {entry.name for entry in folder.iterdir() if not TEMPORARY.fullmatch(entry.name)}
    return not names or (LOCK in names and names <= _BEFORE_THE_MANIFEST)


def _clear(folder: Path) -> None:
    """Remove everything but the lock."""
    for entry in folder.iterdir():
        if entry.name != LOCK:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove a hidden folder that a killed process left. The lock goes last: until then nobody else begins there.

    One without our lock goes only if it is empty: what is in it is not ours.
    """
    if not (folder / LOCK).is_file():
        with suppress(OSError):
            folder.rmdir()
        return
    try:
        lock = take(folder / LOCK)
    except (Busy, OSError):
        return
    with suppress(OSError):
        _clear(folder)
    lock.release()
    with suppress(OSError):
        folder.rmdir()
