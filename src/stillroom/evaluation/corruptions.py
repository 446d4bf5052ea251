"""Corruptions of test images: noise, blur, light, compression and occlusion, each at five severities.

They follow MedMNIST-C (Di Salvo et al., 2024) in kind and are made anew here, in batches and on the device. Each is a
pure function of seed, row, corruption and severity, so every network sees the same pixels. The severities of a
corruption share their random numbers: a higher one does the same to an image, only more of it.

Which strengths are MedMNIST-C's, and which are ours:

- ``gaussian_noise``, ``shot_noise``, ``impulse_noise``, ``speckle_noise``: those of its ChestMNIST and DermaMNIST. Noise
  is drawn per pixel and channel of the image as it is stored, so a small image suffers more than a large one.
- ``brightness_*``, ``contrast_*``, ``gamma_*``: those of its ChestMNIST. ``gamma_up`` is an exponent above 1 and darkens.
- ``jpeg``: its most common list. ``pixelate``: that of its PathMNIST, as shares of the side.
- ``gaussian_blur``, ``defocus_blur``: ours, lengths on an image of 224 pixels that scale with the side. They begin
  inside MedMNIST-C's lists and end beyond them, because a small image has less that a blur could take.
- ``motion_blur``: ours. MedMNIST-C smears one way with a fading tail, at up to 45 degrees; here it is an even line in any
  direction.
- ``bubbles``: ours. A fixed number of discs that grow; MedMNIST-C draws a random number of smaller ones.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stillroom.data.views import uniforms
from stillroom.errors import UsageError, nearest

Draw = Callable[[int], Tensor]
"""``draw(count)`` gives ``[B, count]`` float64 in (0, 1), the same for every severity, on the CPU."""

SEVERITIES = (1, 2, 3, 4, 5)
REFERENCE_SIDE = 224
"""Lengths of blur and bubbles are pixels of an image of this side."""

BUBBLES = 12
BUBBLE_OPACITY = 0.6

# Quantisation tables of the JPEG standard, ITU-T T.81, tables K.1 and K.2.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *[(99,) * 8] * 4,
)  # fmt: skip
# Share of red, green and blue in luma.
_WEIGHTS = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Corruption:
    """One way to spoil an image.

    Attributes:
        name: as :func:`corrupt` takes it.
        family: ``noise``, ``blur``, ``light``, ``digital`` or ``occlusion``.
        strengths: what severities 1 to 5 pass to the function.
        function: ``(images [B, C, S, S], strength, draw)`` to images of the same shape.
    """

    name: str
    family: str
    strengths: tuple[float, float, float, float, float]
    function: Callable[[Tensor, float, Draw], Tensor]


def corrupt(images: Tensor, name: str, severity: int, *, rows: np.ndarray, seed: int) -> Tensor:
    """Spoil every image of a batch.

    Args:
        images: ``[B, C, S, S]`` float in [0, 1], one or three channels.
        name: of one of :data:`CORRUPTIONS`.
        severity: 1 to 5.
        rows: ``[B]`` the images' row numbers: the same row and seed always give the same result, whatever else is in
            the batch.
        seed: of the random numbers.

    Returns:
        ``[B, C, S, S]`` float32 in [0, 1].

    Raises:
        UsageError: an unknown name or severity, or rows that do not fit the images.
    """
    known = {corruption.name: corruption for corruption in CORRUPTIONS}
    if name not in known:
        hint = nearest(name, tuple(known))
        raise UsageError(f"There is no corruption {name!r}.{hint} Corruptions: {', '.join(known)}.")
    if severity not in SEVERITIES:
        raise UsageError(f"severity must be one of {', '.join(map(str, SEVERITIES))}, got {severity}.")
    if len(rows) != len(images):
        raise UsageError(f"Expected one row number per image: {len(images)} images, {len(rows)} row numbers.")
    stream = zlib.crc32(name.encode())

    def draw(count: int) -> Tensor:
        return torch.from_numpy(uniforms(seed, rows, stream, count)).clamp_(min=2.0**-54)

    corruption = known[name]
    return corruption.function(images.float(), corruption.strengths[severity - 1], draw).clamp(0, 1)


# -- noise ------------------------------------------------------------------------------------------------------
def _gaussian_noise(images: Tensor, deviation: float, draw: Draw) -> Tensor:
    return images + deviation * _normal(images, draw)


def _speckle_noise(images: Tensor, deviation: float, draw: Draw) -> Tensor:
    return images * (1 + deviation * _normal(images, draw))


def _impulse_noise(images: Tensor, share: float, draw: Draw) -> Tensor:
    """Black where the draw is in the lowest half of ``share``, white where it is in the highest."""
    level = _level(images, draw)
    return torch.where(level > 1 - share / 2, 1.0, torch.where(level < share / 2, 0.0, images))


def _shot_noise(images: Tensor, photons: float, draw: Draw) -> Tensor:
    """Poisson counts of ``photons`` at white, by inversion: the smallest count whose distribution reaches the draw."""
    rate, level = images * photons, _level(images, draw)
    share = torch.exp(-rate)
    reached, count = share.clone(), torch.zeros_like(images)
    for k in range(1, math.ceil(photons + 8 * math.sqrt(photons) + 10)):
        count += level > reached
        share = share.mul_(rate).div_(k)
        reached += share
    return count / photons


def _normal(images: Tensor, draw: Draw) -> Tensor:
    return torch.special.ndtri(draw(images[0].numel())).to(images).reshape(images.shape)


def _level(images: Tensor, draw: Draw) -> Tensor:
    return draw(images[0].numel()).to(images).reshape(images.shape)


# -- blur -------------------------------------------------------------------------------------------------------
def _gaussian_blur(images: Tensor, deviation: float, draw: Draw) -> Tensor:
    sigma = _pixels(images, deviation)
    return _filtered(images, lambda y, x: torch.exp(-2 * (math.pi * sigma) ** 2 * (y**2 + x**2)))


def _defocus_blur(images: Tensor, radius: float, draw: Draw) -> Tensor:
    """The mean over a disc: its frequency response is ``2 J1(z) / z`` with ``z = 2 pi radius f``."""
    scale = 2 * math.pi * _pixels(images, radius)

    def response(y: Tensor, x: Tensor) -> Tensor:
        z = (scale * torch.sqrt(y**2 + x**2)).clamp(min=1e-4)
        return 2 * torch.special.bessel_j1(z) / z

    return _filtered(images, response)


def _motion_blur(images: Tensor, length: float, draw: Draw) -> Tensor:
    """The mean over a line, in a direction of each image's own."""
    angle = (math.pi * draw(1)).to(images)[:, :, None, None]
    pixels = _pixels(images, length)
    return _filtered(images, lambda y, x: torch.sinc(pixels * (x * angle.cos() + y * angle.sin())))


def _filtered(images: Tensor, response: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Multiply the spectrum of the images, mirrored at their edges, by ``response(y, x)`` in cycles per pixel.

    Done on frequencies because a blur of a fraction of a pixel is then as exact as a wide one.
    """
    side = images.shape[-1]
    mirrored = torch.cat([images, images.flip(-1)], dim=-1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], dim=-2)
    y = torch.fft.fftfreq(2 * side, device=images.device)[:, None]
    x = torch.fft.rfftfreq(2 * side, device=images.device)[None]
    spectrum = torch.fft.rfft2(mirrored) * response(y, x)
    return torch.fft.irfft2(spectrum, s=(2 * side, 2 * side))[..., :side, :side]


def _pixels(images: Tensor, length: float) -> float:
    return length * images.shape[-1] / REFERENCE_SIDE


# -- light ------------------------------------------------------------------------------------------------------
def _brightness(images: Tensor, factor: float, draw: Draw) -> Tensor:
    return images * factor


def _contrast(images: Tensor, factor: float, draw: Draw) -> Tensor:
    """Distance from the image's mean luma, times ``factor``."""
    mean = _luma(images).mean(dim=(1, 2, 3), keepdim=True)
    return mean + factor * (images - mean)


def _gamma(images: Tensor, exponent: float, draw: Draw) -> Tensor:
    return images**exponent


def _luma(images: Tensor) -> Tensor:
    """``[B, 1, S, S]``: the weighted sum of red, green and blue, or the one channel itself."""
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(_WEIGHTS)[:, None, None]).sum(dim=1, keepdim=True)


# -- digital ----------------------------------------------------------------------------------------------------
def _pixelate(images: Tensor, share: float, draw: Draw) -> Tensor:
    """Area means over a coarser grid of ``share`` as many cells along each side, shown at the old size."""
    side = images.shape[-1]
    cells = max(1, round(side * share))
    edges = torch.arange(cells + 1, device=images.device) * side / cells
    pixels = torch.arange(side, device=images.device)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    means = overlap.clamp(min=0) * cells / side
    spread = means[((pixels + 0.5) * cells / side).long()]
    return spread @ images @ spread.T


def _jpeg(images: Tensor, quality: float, draw: Draw) -> Tensor:
    """Baseline JPEG as libjpeg writes and reads it: 8 bits, standard tables, colour as 4:2:0, smooth upsampling."""
    side = images.shape[-1]
    rest = -side % 16
    whole = functional.pad((images * 255).round(), (0, rest, 0, rest), mode="replicate")
    if whole.shape[1] == 1:
        return _coded(whole, _LUMA, quality)[..., :side, :side] / 255
    luma = _luma(whole)
    red, blue = whole[:, :1] - luma, whole[:, 2:] - luma
    chroma = torch.cat([blue / 1.772, red / 1.402], dim=1) + 128
    halved = functional.avg_pool2d(chroma.round().clamp(0, 255), 2).round()
    chroma = functional.interpolate(_coded(halved, _CHROMA, quality), scale_factor=2.0, mode="bilinear") - 128
    luma = _coded(luma.round(), _LUMA, quality)
    blue, red = luma + 1.772 * chroma[:, :1], luma + 1.402 * chroma[:, 1:]
    green = (luma - _WEIGHTS[0] * red - _WEIGHTS[2] * blue) / _WEIGHTS[1]
    return torch.cat([red, green, blue], dim=1)[..., :side, :side].round() / 255


def _coded(planes: Tensor, table: tuple[tuple[int, ...], ...], quality: float) -> Tensor:
    """Planes of whole numbers 0 to 255, sides multiples of 8, after quantisation of their 8 x 8 cosine transforms."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    steps = ((planes.new_tensor(table) * scale + 50) / 100).floor().clamp(1, 255)[:, None, :]
    place = torch.arange(8, device=planes.device)
    cosines = torch.cos(math.pi * (2 * place[None] + 1) * place[:, None] / 16) / 2
    cosines[0] /= math.sqrt(2)
    count, channels, height, width = planes.shape
    blocks = (planes - 128).reshape(count, channels, height // 8, 8, width // 8, 8)
    coefficients = torch.einsum("ux,bchxwy,vy->bchuwv", cosines, blocks, cosines)
    kept = (coefficients / steps).round() * steps
    restored = torch.einsum("ux,bchuwv,vy->bchxwy", cosines, kept, cosines)
    return (restored.reshape(planes.shape) + 128).round().clamp(0, 255)


# -- occlusion --------------------------------------------------------------------------------------------------
def _bubbles(images: Tensor, largest: float, draw: Draw) -> Tensor:
    """Bright discs with soft edges, of radii from a third of ``largest`` to ``largest``, anywhere on the image."""
    side = images.shape[-1]
    places = draw(3 * BUBBLES).to(images).reshape(-1, BUBBLES, 3, 1, 1)
    axis = torch.arange(side, device=images.device) + 0.5
    cover = images.new_zeros(len(images), side, side)
    for x, y, size in (bubble.unbind(dim=1) for bubble in places.unbind(dim=1)):
        radius = _pixels(images, largest) * (1 + 2 * size) / 3
        distance = torch.sqrt((axis - x * side) ** 2 + (axis[:, None] - y * side) ** 2)
        edge = (0.4 * radius).clamp(min=1.0)
        cover = torch.maximum(cover, ((radius - distance) / edge + 0.5).clamp(0, 1))
    opacity = BUBBLE_OPACITY * cover[:, None]
    return images + opacity * (1 - images)


CORRUPTIONS = (
    Corruption("gaussian_noise", "noise", (0.04, 0.08, 0.12, 0.18, 0.26), _gaussian_noise),
    Corruption("shot_noise", "noise", (60, 25, 18, 10, 5), _shot_noise),
    Corruption("impulse_noise", "noise", (0.01, 0.03, 0.06, 0.09, 0.17), _impulse_noise),
    Corruption("speckle_noise", "noise", (0.05, 0.15, 0.2, 0.35, 0.45), _speckle_noise),
    Corruption("defocus_blur", "blur", (3, 6, 9, 12, 16), _defocus_blur),
    Corruption("gaussian_blur", "blur", (1.5, 3, 4.5, 6, 8), _gaussian_blur),
    Corruption("motion_blur", "blur", (8, 14, 20, 28, 36), _motion_blur),
    Corruption("brightness_up", "light", (1.1, 1.2, 1.3, 1.4, 1.5), _brightness),
    Corruption("brightness_down", "light", (0.9, 0.8, 0.7, 0.6, 0.5), _brightness),
    Corruption("contrast_up", "light", (1.1, 1.2, 1.3, 1.4, 1.6), _contrast),
    Corruption("contrast_down", "light", (0.9, 0.8, 0.7, 0.6, 0.4), _contrast),
    Corruption("gamma_up", "light", (1.1, 1.2, 1.3, 1.4, 1.6), _gamma),
    Corruption("gamma_down", "light", (0.9, 0.8, 0.7, 0.6, 0.4), _gamma),
    Corruption("jpeg", "digital", (50, 30, 15, 10, 7), _jpeg),
    Corruption("pixelate", "digital", (0.8, 0.6, 0.4, 0.3, 0.25), _pixelate),
    Corruption("bubbles", "occlusion", (8, 14, 20, 26, 34), _bubbles),
)
"""Every corruption, family by family."""
