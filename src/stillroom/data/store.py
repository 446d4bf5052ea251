"""The array store: every image decoded once, at the training size, into arrays on disk that are mapped into memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from stillroom.data.contents import contents_of
from stillroom.data.decoding import THUMBNAIL, Form, decode_all, why_unreadable
from stillroom.data.facts import ImageFacts
from stillroom.data.geometry import PREPROCESSING_VERSION, Fit
from stillroom.data.table import Table
from stillroom.errors import RunError
from stillroom.files.cache import cache_root, fingerprint, publish, read_meta


@dataclass(frozen=True)
class Quarantined:
    """An image that could not be used: its table id and why, in plain words."""

    id: str
    reason: str


@dataclass(frozen=True)
class Store:
    """Images of one table, row for row, as square integer arrays on disk. ``N`` rows, side ``S``.

    Pixels stay on disk until asked for: :meth:`batch` copies the rows it is given, :attr:`images` maps them all.

    Attributes:
        pixels: ``[M, C, S, S]`` uint8 or uint16, the arrays on disk, of which this store sees ``rows``.
        mask_pixels: ``[M, S, S]`` uint8 of 0/1, or None where no row has a mask.
        rows: ``[N]`` int64 positions in ``pixels`` and ``mask_pixels``.
        thumbnails: ``[N, 32, 32]`` uint8, the whole native image in grey, stretched, contrast as is.
        digests: ``[N]`` str, equal for equal decoded pixels at native size, whatever the file, its name, its place or its
            format. A grey image saved as RGB counts as grey.
        mask_digests: ``[N]`` str, the same of masks; empty where a row has none, which is all 0 in ``mask_pixels``.
        original_sizes: ``[N, 2]`` int64, native height and width.
        bit_depths: ``[N]`` int64, 8 or 16, as decoded.
        facts: what else is known of each image.
        white: the value that means 1.0: 255, or for 16-bit sets the smallest of 1023, 4095, 16383 and 65535 that holds
            every image but for a handful of pixels (:func:`~stillroom.data.geometry.white_of`), which are shown as white.
            Where 8 and 16 bits mix it is 65535 and the 8-bit rows are scaled by 257.
        size: ``S``.
        fit: how non-square images were made square.
    """

    pixels: np.ndarray
    mask_pixels: np.ndarray | None
    rows: np.ndarray
    thumbnails: np.ndarray
    digests: np.ndarray
    mask_digests: np.ndarray
    original_sizes: np.ndarray
    bit_depths: np.ndarray
    facts: ImageFacts
    white: float
    size: int
    fit: Fit

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def fingerprint(self) -> str:
        """Equal for equal images and masks in the same order and form, and for no others, wherever they came from."""
        form = [PREPROCESSING_VERSION, self.size, self.fit, self.white, self.pixels.shape[1], self.pixels.dtype.name]
        return fingerprint("images", form, self.digests.tolist(), self.mask_digests.tolist())

    @property
    def has_mask(self) -> np.ndarray:
        """``[N]`` bool."""
        return self.mask_digests != ""

    @property
    def colour(self) -> bool:
        """Three channels; otherwise every image is grey and there is one."""
        return self.pixels.shape[1] == 3

    @property
    def images(self) -> np.ndarray:
        """``[N, C, S, S]``: the memory map itself for a whole store, a copy in memory for a subset."""
        return self.pixels if self._is_whole else self.pixels[self.rows]

    @property
    def masks(self) -> np.ndarray | None:
        """``[N, S, S]`` uint8 of 0/1 on the same terms as :attr:`images`; None where no row has a mask."""
        if self.mask_pixels is None or self._is_whole:
            return self.mask_pixels
        return self.mask_pixels[self.rows]

    @property
    def _is_whole(self) -> bool:
        return np.array_equal(self.rows, np.arange(len(self.pixels)))

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """A copy of these rows' images, ``[B, C, S, S]``."""
        return np.asarray(self.pixels[self.rows[indices]])

    def take(self, indices: np.ndarray) -> Store:
        """The same store with only these rows, in this order. No pixels are copied."""
        rows = self.rows[indices]
        return replace(
            self,
            rows=rows,
            thumbnails=self.thumbnails[indices],
            digests=self.digests[indices],
            mask_digests=self.mask_digests[indices],
            original_sizes=self.original_sizes[indices],
            bit_depths=self.bit_depths[indices],
            facts=self.facts.take(indices),
        )


def build_store(
    table: Table, *, size: int, fit: Fit, white: float | None = None, cache: Path | None = None, progress: bool = True
) -> tuple[Store, Table, list[Quarantined]]:
    """Decode the table's images into a store, or re-open the store that an earlier call built from the same bytes.

    Memory: a few decoded images per processor and about 1.3 kB per row, however large the set; pixels go straight
    to disk. The reader is called from several threads.

    Args:
        table: the rows.
        size: side of the stored images in pixels.
        fit: see :func:`stillroom.data.geometry.fit_image`.
        white: what means white, where other images have said so. One of 16 bits that is brighter is then unreadable.
        cache: root of the cache; default :func:`stillroom.files.cache.cache_root`. The store is in ``stores/<name>``, where
            the name says from which bytes it was made, and how.
        progress: show how far decoding has come, on standard error.

    Returns:
        The store, the table without the unreadable rows (row for row the store's), and the unreadable rows.

    Raises:
        UsageError: no image, or fewer than half of them, can be read.
        RunError: the disk is full, or a file changed while it was being read.
    """
    contents = contents_of(table, cache=cache, show_progress=progress)
    name = fingerprint("store", PREPROCESSING_VERSION, size, fit, white, table.has_masks, contents)
    folder = (cache or cache_root()) / "stores" / name

    def build(scratch: Path) -> None:
        decode_all(table, Form(size, fit, white), scratch, name, progress)
        if contents_of(table, cache=cache, show_progress=False) != contents:  # the name would tell of other bytes
            raise RunError(f"The images of {table.name} changed while they were being read: start again.")

    reasons: dict[int, str | None] = {}

    def valid(candidate: Path) -> bool:
        opened = _open(candidate, name, len(table), size, fit)
        reasons.clear()
        # What was unreadable may have been mended without a new byte, such as a permission or a missing codec; and what it
        # is called has no part in the store's name.
        reasons.update((row, why_unreadable(table, row, white)) for row, _ in (opened or (None, []))[1])
        return opened is not None and None not in reasons.values()

    least = len(table) * (size * size * (1 + table.has_masks) + THUMBNAIL * THUMBNAIL)
    publish(folder, build, valid=valid, needs=least)
    opened = _open(folder, name, len(table), size, fit)
    if opened is None:
        raise RuntimeError(f"{folder} changed while it was being opened.")
    store, unreadable = opened
    kept = np.setdiff1d(np.arange(len(table)), [row for row, _ in unreadable])
    return (
        store,
        table.take(kept),
        [Quarantined(str(table.ids[row]), reasons.get(row) or why) for row, why in unreadable],
    )


def at_side(
    table: Table,
    store: Store,
    size: int,
    *,
    white: float | None = None,
    cache: Path | None = None,
    progress: bool = True,
) -> Store:
    """The images of a store, row for row, at another side, decoded anew from the source or found in the cache.

    Args:
        table: what :func:`build_store` was given for ``store``, so that both know alike what white is.
        store: the store, or rows taken of it.
        size: the side wanted, in pixels.
        white: what :func:`build_store` was given.
        cache: root of the cache.
        progress: show how far decoding has come.

    Raises:
        RunError: the images changed meanwhile, or the disk is full.
    """
    if size == store.size:
        return store
    whole, _, _ = build_store(table, size=size, fit=store.fit, white=white, cache=cache, progress=progress)
    if len(whole) == len(store.pixels):
        found = whole.take(store.rows)
        if np.array_equal(found.digests, store.digests):
            return found
    raise RunError(f"The images of {table.name} changed while they were being read at {size} pixels: start again.")


# -- opening ------------------------------------------------------------------------------------------------------
def _open(folder: Path, name: str, total: int, size: int, fit: Fit) -> tuple[Store, list[tuple[int, str]]] | None:
    """The store in a folder and its unreadable rows; None where anything is missing or not of the stated shape."""
    meta = read_meta(folder)
    if meta is None or meta.get("name") != name:
        return None
    try:
        arrays = {part: _map(folder / f"{part}.bin", **form) for part, form in meta["arrays"].items()}
        with np.load(folder / "index.npz", allow_pickle=False) as index:
            known = ImageFacts.from_columns(index)
            facts = {key: index[key] for key in ("digests", "mask_digests", "original_sizes", "bit_depths")}
        unreadable = [(int(row), str(reason)) for row, reason in meta["unreadable"]]
        count = total - len(unreadable)
        if any(len(array) != count for array in (*arrays.values(), *facts.values(), *known.columns().values())):
            return None
        masks = arrays.get("masks")
        store = Store(
            pixels=arrays["pixels"],
            mask_pixels=None if masks is None else masks[:, 0],
            rows=np.arange(count),
            thumbnails=arrays["thumbnails"][:, 0],
            digests=facts["digests"].astype(str),
            mask_digests=facts["mask_digests"].astype(str),
            original_sizes=facts["original_sizes"],
            bit_depths=facts["bit_depths"],
            facts=known,
            white=float(meta["white"]),
            size=size,
            fit=fit,
        )
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):
        return None
    return store, unreadable


def _map(path: Path, shape: list[int], dtype: str) -> np.ndarray:
    form = np.dtype(dtype)
    if path.stat().st_size != math.prod(shape) * form.itemsize:
        raise ValueError(f"{path} is not {shape} of {dtype}.")
    return np.memmap(path, form, "r", shape=tuple(shape))
