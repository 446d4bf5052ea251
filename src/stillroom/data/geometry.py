"""How a picture becomes a square array of the training size. NumPy and Pillow only: the edge predictor uses it as it is.

Training, evaluation and the deployed predictor all come through here, so that one file gives the same pixels everywhere.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from stillroom.errors import UsageError

Fit = Literal["pad", "resize"]

PREPROCESSING_VERSION = 4
"""Raised whenever a change here or in decoding alters pixels: cached stores of another version are then built anew."""


WHITES = (1023, 4095, 16383, 65535)
"""What white may be in images of more than 8 bits: the largest number of 10, 12, 14 and 16 bits."""


def brighter(image: np.ndarray, white: float) -> int:
    """How many pixels of ``[H, W]`` or ``[H, W, 3]`` have a value above ``white``."""
    above = image > int(white)
    return int(above.any(axis=2).sum() if image.ndim == 3 else above.sum())


def handful(image: np.ndarray) -> int:
    """So many pixels are too few to say what white is: dead ones of the detector, a burned-in mark. One in 10,000, or 4."""
    return max(4, image.shape[0] * image.shape[1] // 10_000)


def white_of(image: np.ndarray) -> int:
    """The image's own white: 255 of 8 bits, else the least of :data:`WHITES` that holds all but a handful of its pixels."""
    if image.dtype == np.uint8:
        return 255
    return next(white for white in WHITES if brighter(image, white) <= handful(image))


def fit_image(image: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """The image on a ``size`` x ``size`` square; an image of that size already comes back bit for bit.

    Bicubic with antialiasing, so that shrinking averages and does not skip pixels. 16-bit images keep their precision
    and never overshoot their own brightest pixel.

    Args:
        image: ``[H, W]`` or ``[H, W, 3]``, uint8 or uint16.
        size: side of the square in pixels.
        fit: ``pad`` keeps the aspect ratio and centres the image on black, ``resize`` stretches it.

    Returns:
        ``[size, size]`` or ``[size, size, 3]`` of the image's dtype.
    """
    return _on_square(image, size, fit, Image.Resampling.BICUBIC)


def fit_mask(mask: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """The mask under the same geometry as :func:`fit_image`, by nearest neighbour.

    Args:
        mask: ``[H, W]``, true or non-zero inside the marked region.

    Returns:
        ``[size, size]`` uint8 of 0/1.
    """
    return _on_square((mask != 0).astype(np.uint8), size, fit, Image.Resampling.NEAREST)


def on_original(values: np.ndarray, height: int, width: int, fit: Fit) -> np.ndarray:
    """What stands on the square, such as a heat map, laid back over the image it was made from: :func:`fit_image` undone.

    Args:
        values: ``[S, S]`` float.
        height, width: of the original image, in pixels.
        fit: how the image was made square.

    Returns:
        ``[height, width]`` float32, bilinear.
    """
    inner = values.astype(np.float32)
    if fit == "pad":
        rows, columns = inner_box(height, width, len(values))
        inner = inner[rows, columns]
    return np.asarray(Image.fromarray(inner).resize((width, height), Image.Resampling.BILINEAR))


def drop_equal_channels(image: np.ndarray) -> np.ndarray:
    """``[H, W]`` where the three channels are equal (a grey film saved as RGB), else the image itself."""
    if image.ndim == 3 and _is_grey(image[len(image) // 2]) and _is_grey(image):  # a row tells most colour images
        return np.ascontiguousarray(image[..., 0])
    return image


def _is_grey(pixels: np.ndarray) -> bool:
    """Whether the three channels of ``[..., 3]`` are equal; compared two by two, which NumPy does fifteen times faster."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    return np.array_equal(red, green) and np.array_equal(red, blue)


def fit_to_image(mask: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """A mask of another scale at the image's size, by nearest neighbour; None where its sides are not in the same proportion.

    Args:
        mask: ``[H, W]`` bool.
        height, width: of the image. Both sides must be the mask's times one factor, to the rounding of a pixel.
    """
    given, wanted = np.array(mask.shape), np.array((height, width))
    if ((given - 0.5) / wanted).max() > ((given + 0.5) / wanted).min():
        return None
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)) > 0


def luminance(image: np.ndarray) -> np.ndarray:
    """``[H, W]`` of the same dtype: an ``[H, W, 3]`` image in grey (ITU-R 601), a grey one as it is."""
    if image.ndim == 2:
        return image
    # In whole numbers: what sums of fractions round to where they end in a half depends on the machine's linear algebra.
    red, green, blue = np.moveaxis(image.astype(np.uint32), 2, 0)
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(image.dtype)


def as_stored(image: np.ndarray, size: int, fit: Fit, colour: bool, white: float) -> np.ndarray:
    """One decoded image exactly as a store with these properties holds it; divided by ``white`` it is the network's input.

    Args:
        image: ``[H, W]`` or ``[H, W, 3]``, uint8 or uint16.
        size, fit: as in :func:`fit_image`.
        colour: whether the store has three channels. If not, a colour image is turned grey.
        white: the store's value of white; 255 means 8-bit rows.

    Returns:
        ``[3 or 1, size, size]`` uint8 where ``white`` is 255, else uint16. A handful of pixels that are brighter than white
        is shown as white, at native size, so that they do not shine into their neighbours.

    Raises:
        UsageError: the image is 16-bit and the store is not, or more than a handful of its pixels are brighter than the
            store's white: its own white is unknown, and a guess would change what the network sees.
    """
    if image.dtype == np.uint16 and (above := brighter(image, white)):
        if above > handful(image):
            raise UsageError(
                f"The image has values up to {image.max()}, but the model was trained on images whose white is "
                f"{white:g}. Convert the image to that range first."
            )
        image = np.minimum(image, np.uint16(white))
    image = drop_equal_channels(image)
    pixels = planes(fit_image(image if colour else luminance(image), size, fit), 3 if colour else 1)
    if image.dtype == np.uint8 and white != 255:
        # Exact for 65535 = 257 * 255, which is the white of every store that mixes 8 and 16 bits.
        return np.rint(pixels * (white / 255)).astype(np.uint16)
    return pixels if white != 255 else pixels.astype(np.uint8)


def planes(image: np.ndarray, channels: int) -> np.ndarray:
    """``[H, W]`` or ``[H, W, 3]`` as ``[channels, H, W]``; grey is repeated to fill three channels."""
    if image.ndim == 3:
        return np.ascontiguousarray(image.transpose(2, 0, 1))
    return np.repeat(image[None], channels, axis=0)


def _on_square(image: np.ndarray, size: int, fit: Fit, resampling: Image.Resampling) -> np.ndarray:
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    if fit == "resize":
        return _resize(image, size, size, resampling)
    rows, columns = inner_box(height, width, size)
    square = np.zeros((size, size, *image.shape[2:]), dtype=image.dtype)
    square[rows, columns] = _resize(image, rows.stop - rows.start, columns.stop - columns.start, resampling)
    return square


def inner_box(height: int, width: int, size: int) -> tuple[slice, slice]:
    """Rows and columns of the square that a padded image takes."""
    scale = size / max(height, width)
    sides = (max(1, round(height * scale)), max(1, round(width * scale)))
    starts = ((size - side) // 2 for side in sides)
    rows, columns = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return rows, columns


def _resize(image: np.ndarray, height: int, width: int, resampling: Image.Resampling) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    if image.dtype == np.uint8:
        return np.asarray(_in_two_passes(Image.fromarray(image), height, width, resampling))
    if image.ndim == 3:
        return np.stack([_resize(plane, height, width, resampling) for plane in planes(image, 3)], axis=-1)
    # Pillow resamples 16-bit integers coarsely; 32-bit floats hold them exactly.
    smooth = np.asarray(_in_two_passes(Image.fromarray(image.astype(np.float32)), height, width, resampling))
    return np.rint(smooth).clip(0, image.max()).astype(np.uint16)


def _in_two_passes(image: Image.Image, height: int, width: int, resampling: Image.Resampling) -> Image.Image:
    """Rows first. Asked for both, Pillow 11, 12 and 13 begin tall images with different passes, which round otherwise."""
    return image.resize((width, image.height), resampling).resize((width, height), resampling)
