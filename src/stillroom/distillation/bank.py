"""The teacher bank: a teacher's outputs, computed once per image and view, stored, and replayed exactly.

A bank is a folder of float16 arrays in the cache, named by a fingerprint of everything that its content depends on:
the teacher's weights, the images, the view policy and the outputs asked for. Runs share it; one that does not match
has another name and is never found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from stillroom.data.images import Images
from stillroom.data.inference import at_once, evaluating
from stillroom.errors import RunError
from stillroom.files.cache import cache_root, fingerprint, publish, read_meta, write_meta
from stillroom.progress import progress

_FORMAT = 1

Ask = Callable[[Tensor], dict[str, Tensor]]
"""What a network is asked: ``[B, C, H, W]`` images in [0, 1] to outputs ``[B, ...]`` by name."""


@dataclass(frozen=True)
class Bank:
    """Stored outputs of one network over ``V`` views of ``n`` images.

    Attributes:
        rows: ``[n]`` the data set's row numbers, ascending.
        views: the ``V`` view numbers (None is the image as it is).
        arrays: by name, ``[V, n, ...]`` float16, memory-mapped.
    """

    rows: np.ndarray
    views: tuple[int | None, ...]
    arrays: dict[str, np.ndarray]

    def at(self, name: str, rows: np.ndarray, view: int | None) -> np.ndarray:
        """``[B, ...]`` float32: the output ``name`` for these rows in that view. KeyError for rows it does not hold."""
        places = np.searchsorted(self.rows, rows) % len(self.rows)
        if (self.rows[places] != rows).any():
            raise KeyError("The bank does not hold every row asked for.")
        return np.asarray(self.arrays[name][self.views.index(view)][places], dtype=np.float32)

    def averaged(self) -> Bank:
        """The bank that answers to every view with the mean over its views, in float32 and in memory."""
        means = {name: array.mean(axis=0, dtype=np.float32) for name, array in self.arrays.items()}
        return replace(self, arrays={n: np.broadcast_to(mean, self.arrays[n].shape) for n, mean in means.items()})


def build_bank(
    network: nn.Module,
    digest: str,
    images: Images,
    rows: np.ndarray,
    views: Sequence[int | None],
    ask: Ask,
    *,
    asks: str,
    label: str,
    cache: Path | None = None,
    show_progress: bool = True,
) -> Bank:
    """Open the bank for these rows and views, or compute it.

    Args:
        network: the teacher; evaluated without gradients.
        digest: identifies its weights and settings (see ``models.weights.weights_digest``).
        images: the data set's images.
        rows: ``[n]`` row numbers to cover.
        views: view numbers to cover.
        ask: maps ``[B, C, H, W]`` to named outputs ``[B, ...]``.
        asks: a text that identifies what ``ask`` returns.
        label: for the progress bar.
        cache: cache folder; default the user's.
        show_progress: show a bar.

    Raises:
        RunError: an output is not finite, or the disk is full.
    """
    rows, views = np.sort(rows), tuple(views)
    policy = images.policy if views != (None,) else None
    name = fingerprint(_FORMAT, digest, images.store.fingerprint, rows.tolist(), list(views), policy, asks, "fp16")
    folder = (cache or cache_root()) / "banks" / name

    def build(target: Path) -> None:
        outputs = []
        with (
            progress(label, len(views) * len(rows), enabled=show_progress) as advance,
            evaluating(network),
            ExitStack() as files,
        ):
            writers: dict[str, BinaryIO] = {}
            size = at_once(images.store.size, images.device)
            for view, batch in product(views, np.split(rows, range(size, len(rows), size))):
                for key, value in ask(images.batch(batch, view)).items():
                    stored = value.to(torch.float16).cpu().numpy()
                    _check_finite(key, stored, batch)
                    if key not in writers:
                        writers[key] = files.enter_context((target / f"{key}.npy").open("wb"))
                        _write_header(writers[key], (len(views), len(rows), *stored.shape[1:]))
                    writers[key].write(np.ascontiguousarray(stored).data)
                advance(len(batch))
            outputs = sorted(writers)
        write_meta(target, {"outputs": outputs, "asks": asks})

    folder = publish(folder, build)
    meta = read_meta(folder) or {}
    arrays = {key: np.load(folder / f"{key}.npy", mmap_mode="r") for key in meta["outputs"]}
    return Bank(rows, views, arrays)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The head of a .npy file whose values follow in order. Not a memory map: a full disk would kill the process."""
    layout = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, layout)


def _check_finite(name: str, stored: np.ndarray, rows: np.ndarray) -> None:
    finite = np.isfinite(stored).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
        raise RunError(
            f"The teacher's {name} for image row {int(rows[~finite][0])} is not finite in float16; its weights are "
            "damaged or its input is not what it was trained on."
        )
