"""The twelve 2-D sets of MedMNIST v2 / MedMNIST+, in the splits and class order of their publication.

``import medmnist`` loads torch. Its table of facts (labels, tasks, MD5 sums) is a plain file beside that,
so the table alone is read, and files are fetched from where it says that they are.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from stillroom.data.table import SPLITS, Table
from stillroom.errors import StillroomError, StorageError, UsageError, nearest
from stillroom.extras import need
from stillroom.files.download import Digest, download
from stillroom.settings.sections import DataSettings
from stillroom.task import MultiClass, MultiLabel, Task

RESOLUTIONS = (28, 64, 128, 224)

MEDMNIST_SETS = {
    "pathmnist": "colon pathology, 9 tissues, RGB",
    "chestmnist": "chest X-ray, 14 findings, multi-label",
    "dermamnist": "dermatoscope, 7 lesions, RGB",
    "octmnist": "retinal OCT, 4 diagnoses",
    "pneumoniamnist": "children's chest X-ray, pneumonia or normal",
    "retinamnist": "fundus camera, 5 ordered grades of retinopathy, RGB",
    "breastmnist": "breast ultrasound, malignant or not",
    "bloodmnist": "blood cell microscope, 8 cells, RGB",
    "tissuemnist": "kidney cortex microscope, 8 cells",
    "organamnist": "abdominal CT, axial, 11 organs",
    "organcmnist": "abdominal CT, coronal, 11 organs",
    "organsmnist": "abdominal CT, sagittal, 11 organs",
}
"""Each flag and what it is, in one line."""


def medmnist_flags() -> list[str]:
    """The flags of the twelve 2-D sets."""
    return list(MEDMNIST_SETS)


class NpzReader:
    """Images of one MedMNIST file; rows count through train, val and test in turn.

    A split is decompressed when first asked for, once for all threads, and kept; a pickled copy starts anew.

    Args:
        path: the ``.npz`` file.
        md5: its checksum, by which its images are known.
        counts: images in train, val and test.
    """

    def __init__(self, path: Path, md5: str, counts: tuple[int, int, int]) -> None:
        self.path, self.md5, self.counts = path, md5, counts
        self._images: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return NpzReader, (self.path, self.md5, self.counts)

    def read(self, index: int) -> np.ndarray:
        """``[R, R]`` or ``[R, R, 3]`` uint8, ``R`` being the file's resolution."""
        for split, count in zip(SPLITS, self.counts, strict=True):
            if index < count:
                return self._split(split)[index]
            index -= count
        raise IndexError(f"{self.path.name} has {sum(self.counts)} images")

    def _split(self, split: str) -> np.ndarray:
        with self._lock:
            if split not in self._images:
                with np.load(self.path) as arrays:
                    self._images[split] = arrays[f"{split}_images"]
            return self._images[split]

    def read_mask(self, index: int) -> np.ndarray | None:
        """None: MedMNIST's 2-D sets have no masks."""
        return None

    def made_of(self, index: int) -> str:
        """The file's MD5 and the row."""
        return f"{self.md5} {index}"


def read_medmnist(flag: str, settings: DataSettings) -> Table:
    """The table of one MedMNIST set, with its own three splits and its own numbering of the classes.

    MedMNIST's numbering is kept so that figures match the published ones. Class 1 is therefore the
    positive one of binary sets: pneumonia in PneumoniaMNIST, but "normal, benign" in BreastMNIST, where 0 is
    malignant.

    The file ``<flag>.npz`` (28 px) or ``<flag>_<resolution>.npz`` is looked for in ``settings.data_dir``, or
    without it in ``$STILLROOM_DATA/medmnist``, ``$STILLROOM_DATA`` and ``~/.medmnist``. If it is nowhere it
    is downloaded to ``data_dir``, or ``~/.medmnist``. Its MD5 must be the one that MedMNIST states, or it is thrown
    away; one that is cut goes on with the next try.

    Args:
        flag: e.g. ``pneumoniamnist``, in any case.
        settings: ``size``, ``resolution``, ``data_dir``, ``task`` and ``classes`` are used.

    Raises:
        UsageError: no such set; a task or classes that are not the set's; the file is absent and cannot be
            downloaded, or is damaged.
        RunError: the download was cut, or brought another file.
        StorageError: there is no room for the file.
    """
    flag = flag.lower()
    if flag not in MEDMNIST_SETS:
        raise UsageError(
            f"{flag!r} is not a 2-D MedMNIST set.{nearest(flag, medmnist_flags())} "
            f"There are: {', '.join(medmnist_flags())}."
        )
    info = medmnist_info()[flag]
    task = _task(flag, info, settings)
    resolution = _resolution(settings)
    path = _find(flag, resolution, settings) or _download(flag, resolution, info, settings)
    md5 = info["MD5" if resolution == 28 else f"MD5_{resolution}"]
    status = path.stat()
    if _md5(path, status.st_size, status.st_mtime_ns) != md5:
        raise UsageError(
            f"{path} is damaged or another version: its MD5 is not {md5}, as MedMNIST states. "
            "Delete the file to download it again."
        )
    with np.load(path) as arrays:
        labels = [arrays[f"{split}_labels"] for split in SPLITS]
    counts = (len(labels[0]), len(labels[1]), len(labels[2]))
    stacked = np.concatenate(labels)
    return Table(
        name=flag,
        source=f"MedMNIST v2 {info['python_class']}, {resolution} px",
        task=task,
        ids=np.array([f"{split}/{i}" for split, n in zip(SPLITS, counts, strict=True) for i in range(n)]),
        targets=stacked[:, 0].astype(np.int64) if task.exclusive else stacked.astype(np.uint8),
        splits=np.repeat(np.array(SPLITS, dtype="<U5"), counts),
        rows=np.arange(sum(counts)),
        reader=NpzReader(path, md5, counts),
    )


@cache
def medmnist_info() -> dict[str, dict[str, Any]]:
    """``medmnist.INFO``, read from the installed package without importing it (and torch with it)."""
    need("medmnist", "A set of MedMNIST")
    package = importlib.util.find_spec("medmnist")
    assert package is not None
    assert package.origin is not None
    spec = importlib.util.spec_from_file_location("medmnist_info", Path(package.origin).with_name("info.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.INFO


def _task(flag: str, info: dict[str, Any], settings: DataSettings) -> Task:
    classes = tuple(info["label"][str(k)] for k in range(len(info["label"])))
    if settings.classes and settings.classes != classes:
        raise UsageError(
            f"The classes of {flag} and their order are fixed, so that figures match published ones: "
            f"{'; '.join(classes)}. Leave `classes` out."
        )
    published = {"multi-label, binary-class": "multilabel", "ordinal-regression": "ordinal"}
    kind = published.get(info["task"], "multiclass")
    if settings.task not in ("auto", kind) and (settings.task, kind) != ("multiclass", "ordinal"):
        raise UsageError(f"{flag} is a {kind} set; `task` {settings.task} does not fit it. Leave `task` out.")
    if kind == "multilabel":
        return MultiLabel(classes)
    return MultiClass(classes, ordinal=kind == "ordinal" and settings.task != "multiclass")


def _resolution(settings: DataSettings) -> int:
    if settings.resolution is not None:
        if settings.resolution not in RESOLUTIONS:
            raise UsageError(f"MedMNIST has 28, 64, 128 and 224 px files, not `resolution` {settings.resolution}.")
        return settings.resolution
    return next((side for side in RESOLUTIONS if side >= settings.size), RESOLUTIONS[-1])


def at_hand(flag: str, settings: DataSettings) -> list[int]:
    """Sides in pixels of the set's files that need not be downloaded."""
    return [side for side in RESOLUTIONS if _find(flag, side, settings)]


def _folders(settings: DataSettings) -> list[Path]:
    if settings.data_dir is not None:
        return [Path(settings.data_dir)]
    given = os.environ.get("STILLROOM_DATA")
    return [*([Path(given, "medmnist"), Path(given)] if given else []), Path.home() / ".medmnist"]


def _file_name(flag: str, resolution: int) -> str:
    return f"{flag}.npz" if resolution == 28 else f"{flag}_{resolution}.npz"


def _find(flag: str, resolution: int, settings: DataSettings) -> Path | None:
    candidates = (folder / _file_name(flag, resolution) for folder in _folders(settings))
    return next((path for path in candidates if path.is_file()), None)


def _download(flag: str, resolution: int, info: dict[str, Any], settings: DataSettings) -> Path:
    """Fetch a file from where it is published, into the last of the folders searched."""
    name, folder = _file_name(flag, resolution), _folders(settings)[-1]
    suffix = "" if resolution == 28 else f"_{resolution}"
    url = info[f"url{suffix}"]
    try:
        return download(url, folder / name, name=name, digest=Digest("md5", info[f"MD5{suffix}"]))
    except StorageError:
        raise
    except StillroomError as error:
        present = [side for side in RESOLUTIONS if side != resolution and _find(flag, side, settings)]
        other = "".join(
            f" The {side} px file is there: --resolution {side} would "
            f"{'up' if side < settings.size else 'down'}sample it."
            for side in present[:1]
        )
        raise type(error)(
            f"{name} is not in {', '.join(map(str, _folders(settings)))}, and downloading it failed: {error} "
            f"Or fetch it from {url} and put it into {folder}.{other}"
        ) from error


@cache
def _md5(path: Path, size: int, mtime_ns: int) -> str:
    """The file's MD5, once per process and state of the file: the large ones take seconds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
