"""From stored grey values to what is shown: modality, then VOI, then presentation (DICOM PS3.3 C.11, PS3.4 N.2).

The chain is worked out for every value that the bits can hold, so that no image is scaled by its own minimum and maximum, and
an image is a lookup in the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stillroom.data.dicom.opening import number_of, sequence_of, value_of
from stillroom.data.table import UnreadableImage
from stillroom.settings.windows import Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

WAYS = ("asked", "table", "window", "range")
"""What may decide how an image is shown."""

_CHOOSE_ONE = (
    "mend the file, or train with one window for all images (`stillroom distill SOURCE --window CENTER,WIDTH`)"
)
"""For every verb: to those that ask a model, its window is given."""


@dataclass(frozen=True)
class Display:
    """How DICOM images are shown.

    Attributes:
        window: what goes from black to white; None takes what each file says.
        white: the number that means white, 255 or a larger one below 65536.
    """

    window: Window | None = None
    white: int = 65535


class Shown(NamedTuple):
    """What decided how an image is shown: ``asked``, ``table`` (a VOI LUT), ``window`` (the file's first) or ``range``.

    A window has a centre, a width, and a function: ``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``.
    """

    by: str
    centre: float = 0.0
    width: float = 0.0
    function: str = "LINEAR"


class _Table(NamedTuple):
    entries: np.ndarray  # [n] float64
    first: int
    bits: int

    def of(self, values: np.ndarray) -> np.ndarray:
        return self.entries[np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)]

    @property
    def top(self) -> float:
        return float(2**self.bits - 1)


def shown_by(header: Dataset, frame: int, window: Window | None) -> Shown:
    """What decides how a grey frame is shown.

    Raises:
        UnreadableImage: the window asked for does not fit the image, or the file's own cannot be used.
    """
    if window is not None:
        if window.name:
            _refuse_without_units(header, window)
        return Shown("asked", window.centre, window.width)
    voi = _voi_of(header, frame)
    if sequence_of(voi, "VOILUTSequence"):
        return Shown("table")
    centre, width = number_of(voi, "WindowCenter"), number_of(voi, "WindowWidth")
    if centre is None or width is None:
        return Shown("range")
    function = _function_of(voi)
    least = 0.0 if function != "LINEAR" else 1.0
    if not (np.isfinite(centre) and np.isfinite(width)) or width < least or width == 0:
        raise UnreadableImage(f"its window has no width; {_CHOOSE_ONE}")
    return Shown("window", centre, width, function)


@np.errstate(all="ignore")  # what is no number in the end is refused
def grey_table(header: Dataset, frame: int, bits: int, signed: bool, display: Display) -> tuple[int, np.ndarray]:
    """What each stored value is shown as.

    Args:
        header: the file's elements.
        frame: from 0.
        bits: stored bits, at most 16.
        signed: whether stored values are.
        display: window and white.

    Returns:
        The least value that can be stored, and ``[2**bits]`` what it and those above it are shown as: uint8 where 8 bits hold
        all that there is to show or ``white`` is 255, else uint16.

    Raises:
        UnreadableImage: the file's rescaling, tables or window cannot be used.
    """
    low = -(2 ** (bits - 1)) if signed else 0
    levels = np.arange(low, low + 2**bits, dtype=np.float64)
    values, black, white = _modality(header, frame, levels)
    shown = shown_by(header, frame, display.window)
    inverted = str(value_of(header, "PhotometricInterpretation")) == "MONOCHROME1"
    voi = _voi_of(header, frame)
    if shown.by == "table":
        table = _table_of(sequence_of(voi, "VOILUTSequence")[0], signed=bool(values.min() < 0))
        share = table.of(values) / table.top
        share = 1 - share if inverted else share
    elif shown.function == "SIGMOID":
        share = 1 / (1 + np.exp(np.clip(-4 * (values - shown.centre) / shown.width, -700, 700)))
        share = 1 - share if inverted else share
    else:
        if shown.by != "range":
            exact = shown.function == "LINEAR_EXACT"
            centre, width = (shown.centre, shown.width) if exact else (shown.centre - 0.5, shown.width - 1)
            black, white = centre - width / 2, centre + width / 2
        share = _ramp(values, *((white, black) if inverted else (black, white)))
    share[_padding(header, levels, signed)] = 0
    if np.isnan(share).any():
        raise UnreadableImage("its window and rescaling are beyond what can be computed")
    plain = bits <= 8 and shown.by == "range" and not sequence_of(header, "ModalityLUTSequence")
    top = 255 if plain else display.white
    return low, np.rint(np.clip(share, 0, 1) * top).astype(np.uint8 if top == 255 else np.uint16)


def _ramp(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """0 at black and before it, 1 at white and behind it; exchanging the two mirrors the values exactly."""
    if black == white:  # a window of width 1: a threshold
        return (values > black).astype(np.float64)
    return (values - black) / (white - black)


def _modality(header: Dataset, frame: int, levels: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The levels in the image's own units, and which of these the lowest and highest that it can have are."""
    if tables := sequence_of(header, "ModalityLUTSequence"):
        table = _table_of(tables[0], signed=bool(levels[0] < 0))
        return table.of(levels), 0.0, table.top
    where = functional_group(header, frame, "PixelValueTransformationSequence") or header
    slope, intercept = number_of(where, "RescaleSlope", 1.0), number_of(where, "RescaleIntercept", 0.0)
    if slope is None or intercept is None or not np.isfinite([slope, intercept]).all() or slope == 0:
        raise UnreadableImage("its rescale slope or intercept is no number that it can be shown by")
    values = levels * slope + intercept
    if not np.isfinite(values).all():
        raise UnreadableImage("its rescale slope or intercept is no number that it can be shown by")
    return values, float(values.min()), float(values.max())


def _table_of(item: Dataset, *, signed: bool) -> _Table:
    """A lookup table; its entries may be packed in bytes, words, or given as numbers."""
    reason = "one of its lookup tables is damaged"
    try:
        count, first, bits = (int(number) for number in value_of(item, "LUTDescriptor"))
        data = value_of(item, "LUTData")
        count = count or 65536
        first = first - 65536 if signed and first > 32767 else first
        if isinstance(data, bytes):
            order = "<" if item.original_encoding[1] in (True, None) else ">"
            data = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * count else "u1")
        entries = np.asarray(data, dtype=np.float64).reshape(-1)[:count]
    except Exception:
        raise UnreadableImage(reason) from None
    if len(entries) < count or not 8 <= bits <= 16 or entries.min() < 0:
        raise UnreadableImage(reason)
    if entries.max() > 2**bits - 1:  # some writers state the image's bits
        bits = 16
    return _Table(entries, first, bits)


def _padding(header: Dataset, levels: np.ndarray, signed: bool) -> np.ndarray:
    """``[n]`` bool: values that stand for no picture (C.7.5.1.1.2), which are shown black."""
    value = number_of(header, "PixelPaddingValue")
    if value is None or sequence_of(header, "PerFrameFunctionalGroupsSequence"):
        return np.zeros(len(levels), dtype=bool)
    limit = number_of(header, "PixelPaddingRangeLimit", value)
    ends = sorted(end - 65536 if signed and end > 32767 else end for end in (value, value if limit is None else limit))
    return (levels >= ends[0]) & (levels <= ends[1])


def _voi_of(header: Dataset, frame: int) -> Dataset:
    return functional_group(header, frame, "FrameVOILUTSequence") or header


def functional_group(header: Dataset, frame: int, keyword: str) -> Dataset | None:
    """The item that an enhanced file keeps of a frame, or of all of them."""
    frames = sequence_of(header, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    for group in (*frames, *sequence_of(header, "SharedFunctionalGroupsSequence")[:1]):
        if items := sequence_of(group, keyword):
            return items[0]
    return None


def _function_of(voi: Dataset) -> str:
    """``LINEAR``, ``LINEAR_EXACT`` or ``SIGMOID``; what is none of them counts as the first, the default."""
    function = str(value_of(voi, "VOILUTFunction", "LINEAR")).strip().upper()
    return function if function in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"


def _refuse_without_units(header: Dataset, window: Window) -> None:
    """A preset means Hounsfield units: other modalities have none, and CT may be given without its rescaling."""
    modality = str(value_of(header, "Modality", ""))
    why = f"the window {window.name!r} is in Hounsfield units, which"
    if modality != "CT":
        raise UnreadableImage(f"{why} only CT has")
    group = functional_group(header, 0, "PixelValueTransformationSequence") or header
    if number_of(group, "RescaleSlope") is None or number_of(group, "RescaleIntercept") is None:
        raise UnreadableImage(f"{why} this CT does not give: it has no rescale slope and intercept")
    if str(value_of(group, "RescaleType", "HU")).strip().upper() not in ("HU", "HU_MOD"):
        raise UnreadableImage(f"{why} this CT does not give: its rescale type is another")
