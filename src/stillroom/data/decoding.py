"""Decoding a table's images into raw arrays on disk: once each, in several threads, whatever mix of kinds they are."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stillroom.data.geometry import (
    WHITES,
    Fit,
    as_stored,
    brighter,
    drop_equal_channels,
    fit_image,
    fit_mask,
    fit_to_image,
    luminance,
    planes,
    white_of,
)
from stillroom.data.table import Table, UnreadableImage
from stillroom.errors import RunError, UsageError
from stillroom.files.cache import write_meta
from stillroom.progress import progress

THUMBNAIL = 32
_CHUNK = 256
_ALIKE = 2  # what pixels of a blank image may differ by


class _Facts(NamedTuple):
    """What is known of one image besides its pixels."""

    digest: str
    mask_digest: str
    height: int
    width: int
    bit_depth: int
    blank: bool
    colour: bool
    white: int
    above: tuple[int, ...]  # how many pixels are brighter than each of WHITES
    scaled_mask: bool
    flat_mask: int


@dataclass(frozen=True)
class _Decoded:
    """One image on the training square, before it is known whether the whole set is grey and 8-bit."""

    pixels: np.ndarray  # [C, S, S]
    thumbnail: np.ndarray  # [1, 32, 32]
    mask: np.ndarray | None  # [1, S, S]
    facts: _Facts


@dataclass(frozen=True)
class Form:
    """How images are laid on the training square.

    Attributes:
        size, fit: see :func:`~stillroom.data.geometry.fit_image`.
        white: what means white, where that is not for these images to say; each is then stored as
            :func:`~stillroom.data.geometry.as_stored` does it, and one that is brighter cannot be used.
    """

    size: int
    fit: Fit
    white: float | None = None

    def lay(self, image: np.ndarray, size: int, fit: Fit, colour: bool) -> np.ndarray:
        """``[3 or 1, size, size]``."""
        if self.white is None:
            square = fit_image(image, size, fit)
            return planes(square if colour else luminance(square), 3 if colour else 1)
        try:
            return as_stored(image, size, fit, colour, self.white)
        except UsageError as error:
            raise UnreadableImage(str(error)) from None


def _decode(table: Table, row: int, form: Form, clip: int = WHITES[-1]) -> _Decoded:
    """One row; what is brighter than ``clip`` is shown as white."""
    index = int(table.rows[row])
    image = _checked(table.reader.read(index))
    height, width = image.shape[:2]
    given = table.reader.read_mask(index) if table.has_masks else None
    mask = None if given is None else _mask_of(image, given)
    above = tuple(brighter(image, one) for one in WHITES) if image.itemsize > 1 else (0,) * len(WHITES)
    shown = np.minimum(image, np.uint16(clip)) if any(above) else image
    thumbnail = form.lay(shown, THUMBNAIL, "resize", colour=False)
    return _Decoded(
        pixels=form.lay(shown, form.size, form.fit, colour=image.ndim == 3),
        thumbnail=thumbnail,
        mask=None if mask is None else fit_mask(mask, form.size, form.fit)[None],
        facts=_Facts(
            digest=pixel_digest(image),
            mask_digest="" if mask is None else pixel_digest(mask.astype(np.uint8)),
            height=height,
            width=width,
            bit_depth=8 * image.itemsize,
            blank=_is_blank(image, thumbnail),
            colour=image.ndim == 3,
            white=255 if image.itemsize == 1 else table.white or white_of(image),
            above=above,
            scaled_mask=given is not None and given.shape != (height, width),
            flat_mask=0 if mask is None else 1 if not mask.any() else 2 if mask.all() else 0,
        ),
    )


def _mask_of(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if mask.shape == (height, width):
        return mask
    if (scaled := fit_to_image(mask, height, width)) is None:
        raise UnreadableImage(
            f"its mask is {mask.shape[1]}x{mask.shape[0]} pixels, the image {width}x{height}: not the same shape"
        )
    return scaled


def _is_blank(image: np.ndarray, thumbnail: np.ndarray) -> bool:
    """Every pixel alike but for two counts, as JPEG leaves a blank page. Of 16 bits no more: CT uses a few hundred."""
    if int(thumbnail.max()) - int(thumbnail.min()) > 2 * _ALIKE:  # seldom otherwise, and the whole image takes its time
        return False
    flat = image.reshape(-1, image.shape[2] if image.ndim == 3 else 1)
    return bool((flat.max(axis=0) - flat.min(axis=0)).max() <= _ALIKE)


def _checked(image: np.ndarray) -> np.ndarray:
    if image.size == 0:
        raise UnreadableImage("it has no pixels")
    shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if not shaped or image.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"A reader gave {image.dtype} of shape {image.shape}; see ImageReader.read.")
    return drop_equal_channels(image)


def pixel_digest(image: np.ndarray) -> str:
    """32 hex digits, equal for equal pixels of equal depth at native size, whatever file they came from.

    Args:
        image: as :func:`stillroom.data.geometry.drop_equal_channels` leaves it.
    """
    digest = blake2b(f"{image.dtype.name} {image.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def why_unreadable(table: Table, row: int, white: float | None = None) -> str | None:
    """Why this row, found unreadable before, cannot be used now; None where it can."""
    try:
        _decode(table, row, Form(1, "resize", white))
    except UnreadableImage as error:
        return str(error)
    return None


class _Stack:
    """Equal arrays ``[C, H, W]`` appended to one raw file, which is rewritten wider when a row asks for it.

    Whether a set is grey and 8-bit is known after the last image only, and no image shall be decoded twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.shape = (0, 0, 0)
        self.dtype = np.dtype(np.uint8)
        self.file = path.open("wb")

    def append(self, row: np.ndarray) -> None:
        shape = (max(row.shape[0], self.shape[0]), row.shape[1], row.shape[2])
        dtype = np.promote_types(row.dtype, self.dtype)
        if self.count and (shape, dtype) != (self.shape, self.dtype):
            self._rewrite(lambda rows: _widen(rows, shape[0], dtype))
        self.shape, self.dtype = shape, dtype
        self.file.write(np.ascontiguousarray(_widen(row[None], shape[0], dtype)).data)
        self.count += 1

    def replace(self, place: int, row: np.ndarray) -> None:
        """Write a row anew."""
        whole = np.ascontiguousarray(_widen(row[None], self.shape[0], self.dtype))
        self.file.seek(place * whole.nbytes)
        self.file.write(whole.data)
        self.file.seek(0, os.SEEK_END)

    def to_uint8(self, white: float) -> None:
        """Scale 16-bit rows down, ``white`` to 255."""
        if self.dtype != np.uint8:
            self._rewrite(lambda rows: np.rint(rows * (255 / white)).astype(np.uint8))
            self.dtype = np.dtype(np.uint8)

    def describe(self) -> dict[str, Any]:
        return {"shape": [self.count, *self.shape], "dtype": self.dtype.name}

    def close(self) -> None:
        self.file.close()

    def _rewrite(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.file.close()
        old = np.memmap(self.path, self.dtype, "r", shape=(self.count, *self.shape))
        rewritten = self.path.with_suffix(".new")
        self.file = rewritten.open("wb")
        for start in range(0, self.count, _CHUNK):
            self.file.write(np.ascontiguousarray(change(old[start : start + _CHUNK])).data)
        del old
        rewritten.replace(self.path)


def _widen(rows: np.ndarray, channels: int, dtype: np.dtype) -> np.ndarray:
    """``[N, C, H, W]`` with grey repeated over more channels, and 8-bit values spread over 16 bits."""
    if rows.dtype != dtype:
        rows = rows.astype(dtype) * 257
    return rows if rows.shape[1] == channels else np.repeat(rows, channels, axis=1)


def decode_all(table: Table, form: Form, folder: Path, name: str, show: bool) -> None:
    """Fill a store's folder: three raw arrays, ``index.npz`` with the facts (those of
    :class:`~stillroom.data.facts.ImageFacts` among them) and, last, ``meta.json``.

    Raises UsageError when the table is empty, or when more than half of its images are unreadable, and RunError when an
    image that must be read twice changes in between.
    """
    stacks = {part: _Stack(folder / f"{part}.bin") for part in ("pixels", "thumbnails", "masks")}
    no_mask = np.zeros((1, form.size, form.size), np.uint8)
    facts: list[_Facts] = []
    unreadable: list[tuple[int, str]] = []
    try:
        with progress("decoding images", len(table), enabled=show) as advance:
            for row, decoded in _decode_in_threads(table, form):
                advance()
                if isinstance(decoded, UnreadableImage):
                    unreadable.append((row, str(decoded)))
                    continue
                stacks["pixels"].append(decoded.pixels)
                stacks["thumbnails"].append(decoded.thumbnail)
                if table.has_masks:
                    stacks["masks"].append(no_mask if decoded.mask is None else decoded.mask)
                facts.append(decoded.facts)
        _refuse_mostly_unreadable(table, unreadable)
        white = form.white or _white(facts)
        clipped = [fact.above[WHITES.index(int(white))] if white in WHITES else 0 for fact in facts]
        if form.white is None:
            _clip(table, form, white, clipped, unreadable, stacks)
        stacks["thumbnails"].to_uint8(white)
    finally:
        for stack in stacks.values():
            stack.close()
    np.savez(
        folder / "index.npz",
        digests=np.array([fact.digest for fact in facts], dtype="S32"),
        mask_digests=np.array([fact.mask_digest for fact in facts], dtype="S32"),
        original_sizes=np.array([(fact.height, fact.width) for fact in facts]),
        bit_depths=np.array([fact.bit_depth for fact in facts]),
        blank=np.array([fact.blank for fact in facts]),
        colour=np.array([fact.colour for fact in facts]),
        whites=np.array([fact.white for fact in facts]),
        clipped=np.array(clipped),
        scaled_masks=np.array([fact.scaled_mask for fact in facts]),
        flat_masks=np.array([fact.flat_mask for fact in facts], np.int8),
    )
    masked = any(fact.mask_digest for fact in facts)
    arrays = {part: stack.describe() for part, stack in stacks.items() if part != "masks" or masked}
    write_meta(folder, {"name": name, "white": white, "arrays": arrays, "unreadable": unreadable})


def _white(facts: list[_Facts]) -> float:
    depths = {fact.bit_depth for fact in facts}
    # What the brightest pixel of all would say, one dead pixel of a detector could say for thousands of films.
    return float(max(fact.white for fact in facts) if len(depths) == 1 else WHITES[-1])


def _clip(
    table: Table,
    form: Form,
    white: float,
    clipped: list[int],
    unreadable: list[tuple[int, str]],
    stacks: dict[str, _Stack],
) -> None:
    """Decode those images again that have pixels brighter than white: at their native size these are made white."""
    rows = np.setdiff1d(np.arange(len(table)), [row for row, _ in unreadable])
    places = np.flatnonzero(clipped)
    for number, decoded in _decode_in_threads(table.take(rows[places]), form, int(white)):
        if isinstance(decoded, UnreadableImage):
            raise RunError(f"{table.ids[rows[places[number]]]} changed while it was being read: start again.")
        stacks["pixels"].replace(int(places[number]), decoded.pixels)
        stacks["thumbnails"].replace(int(places[number]), decoded.thumbnail)


def _refuse_mostly_unreadable(table: Table, unreadable: list[tuple[int, str]]) -> None:
    if len(table) == 0:
        raise UsageError(f"{table.name} has no images.")
    if 2 * len(unreadable) > len(table):
        first = ", ".join(f"{table.ids[row]} ({reason})" for row, reason in unreadable[:3])
        raise UsageError(
            f"{len(unreadable)} of the {len(table)} images of {table.name} cannot be read, the first: {first}. "
            "Mend or remove them."
        )


def _decode_in_threads(
    table: Table, form: Form, clip: int = WHITES[-1]
) -> Iterator[tuple[int, _Decoded | UnreadableImage]]:
    """Rows in order. Only a few are ever in flight, so a slow disk does not fill the memory with decoded images."""
    workers = min(16, os.cpu_count() or 1)
    waiting: deque[Future[_Decoded]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for row in range(len(table) + 2 * workers):
                if row < len(table):
                    waiting.append(pool.submit(_decode, table, row, form, clip))
                if row >= 2 * workers and waiting:
                    try:
                        yield row - 2 * workers, waiting.popleft().result()
                    except UnreadableImage as error:
                        yield row - 2 * workers, error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
