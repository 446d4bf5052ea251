"""Draws synthetic chest films: a body that attenuates X-rays, then a film that is exposed, blurred and noisy.

Everything is drawn as attenuation on a float canvas (arbitrary units: a bone is about 0.3, aired lung about -1) in
the *body frame*: ``x`` to the image's right, ``y`` down, the film's half side is 1, the spine stands at ``x = 0``.
Anatomy and lesion belong to a patient, the pose and the exposure to one film. The exposure is read off the anatomy
without its lesion, and the noise is drawn alike with and without, so a lesion changes pixels only where it lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from stillroom.data.sources.phantom_brushes import (
    SIDE,
    blur,
    bump,
    curve,
    draw_strokes,
    grid,
    plate,
    smooth_noise,
    step,
    upsample,
)

MASK_LEVEL = 0.25
"""A lesion's mask is where it has more than this share of its full depth."""

MORE = (0.25, 0.3, 0.25, 0.2)
"""How often a film with a nodule has none, one, two or three nodules more."""

GLYPHS = {"L": ("100", "100", "100", "100", "111"), "R": ("110", "101", "110", "101", "101")}


@dataclass(frozen=True)
class Anatomy:
    """One patient's body, in film half sides where it is a length. Pairs are image left, image right."""

    lung_axis: float
    lung_width: float
    lung_height: float
    apex: float
    domes: tuple[float, float]
    dome_bend: float
    heart: tuple[float, float, float, float]
    aorta: float
    mediastinum: float
    rib_spacing: float
    rib_phase: float
    rib_depth: float
    clavicle: tuple[float, float, float]
    shoulder: float
    breast: float
    haze: tuple[float, ...]
    texture: float
    seed: int


@dataclass(frozen=True)
class Film:
    """Where every pixel of one film lies in the body, ``x`` and ``y`` ``[SIDE, SIDE]`` float32, and the way back."""

    x: np.ndarray
    y: np.ndarray
    shift: tuple[float, float]
    angle: float
    zoom: float
    breath: float

    def pixel(self, x: np.ndarray | float, y: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Row and column (float, pixel centres are whole numbers) of points of the body."""
        cos, sin = self.zoom * np.cos(self.angle), self.zoom * np.sin(self.angle)
        column = np.asarray(cos * x - sin * y + self.shift[0])
        row = np.asarray(sin * x + cos * y + self.shift[1])
        return (row + 1) * SIDE / 2 - 0.5, (column + 1) * SIDE / 2 - 0.5


@dataclass(frozen=True)
class Lesion:
    """What makes a film abnormal: ``side`` is -1 for image left and 1 for image right, ``spot`` a point of the body.

    ``extent`` is a nodule's or a consolidation's radius, or how high an effusion stands over the dome. ``edge`` is a
    nodule's outline (2 soft, 6 sharp, 0 spiculated), a consolidation's lobar border (none below 0, else its slope) or
    how far an effusion's meniscus climbs. ``depth`` is the added attenuation.
    """

    kind: str
    side: int
    spot: tuple[float, float]
    extent: float
    depth: float
    edge: float
    seed: int


# -- what there is to draw: random choices, one generator per patient ----------------------------------------
def sample_anatomy(rng: Generator) -> Anatomy:
    """Draw a patient: habitus, lungs, heart, ribs."""
    apex = rng.uniform(-0.82, -0.66)
    dome = rng.uniform(0.3, 0.56)
    return Anatomy(
        lung_axis=rng.uniform(0.38, 0.46),
        lung_width=rng.uniform(0.28, 0.36),
        lung_height=rng.uniform(0.78, 0.98),
        apex=apex,
        domes=(dome + rng.normal(0, 0.12), dome + 0.04 + rng.normal(0, 0.12)),
        dome_bend=rng.uniform(0.5, 2.2),
        heart=(
            rng.uniform(0.04, 0.18),
            dome - rng.uniform(0.02, 0.18),
            rng.uniform(0.24, 0.42),
            rng.uniform(0.26, 0.36),
        ),
        aorta=rng.uniform(0.05, 0.1),
        mediastinum=rng.uniform(0.09, 0.16),
        rib_spacing=rng.uniform(0.125, 0.18),
        rib_phase=rng.uniform(0, 1),
        rib_depth=rng.uniform(0.08, 0.3),
        clavicle=(rng.uniform(-0.66, -0.5), rng.uniform(-0.25, 0.05), rng.uniform(0.1, 0.3)),
        shoulder=rng.uniform(0.15, 0.5),
        breast=max(0.0, rng.uniform(-0.3, 0.35)),
        haze=tuple(rng.normal(0, 1, 25)),
        texture=rng.uniform(0.02, 0.08),
        seed=int(rng.integers(2**32)),
    )


def sample_lesion(rng: Generator, anatomy: Anatomy, kind: str, visible: float) -> Lesion | None:
    """Draw the patient's lesion; None for ``normal``. ``visible`` runs from 0, nearly invisible, to 1, obvious."""
    if kind == "normal":
        return None
    side = int(rng.choice((-1, 1)))
    spot = lung_point(rng, anatomy, side)
    seed = int(rng.integers(2**32))
    if kind == "nodule":
        extent = rng.uniform(0.1, 0.19)
        return Lesion(kind, side, spot, extent, 0.25 + 1.05 * visible, rng.choice((2.0, 6.0, 0.0)), seed)
    if kind == "consolidation":
        return Lesion(kind, side, spot, rng.uniform(0.22, 0.44), 0.25 + 0.9 * visible, rng.uniform(-1, 1), seed)
    height = rng.uniform(-0.06, 0.2)
    return Lesion(kind, side, spot, height, 0.35 + 0.7 * visible, rng.uniform(0.25, 0.5), seed)


def lung_point(rng: Generator, anatomy: Anatomy, side: int) -> tuple[float, float]:
    """A point inside the lung field of one side, clear of the heart and of the lung's rim."""
    while True:
        y = rng.uniform(anatomy.apex + 0.14, anatomy.domes[side > 0] - 0.06)
        across = rng.uniform(-0.75, 0.75)
        x = side * (anatomy.lung_axis + 0.1 * y + across * anatomy.lung_width)
        heart_x, heart_y, width, height = anatomy.heart
        clear = ((x - heart_x) / width) ** 2 + ((y - heart_y) / height) ** 2 > 1.3
        if clear and float(lung_depth(anatomy, x, y)) < 0.8:
            return float(x), float(y)


def lung_depth(anatomy: Anatomy, x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
    """Below 1 inside the lungs' outline (diaphragm aside), growing outwards."""
    shoulder = anatomy.apex + anatomy.lung_height
    above = np.maximum(shoulder - y, 0) / anatomy.lung_height
    return ((np.abs(x) - anatomy.lung_axis - 0.1 * y) / anatomy.lung_width) ** 2 + above**3


def place_film(rng: Generator) -> Film:
    """Draw how the patient stood: shift, rotation, size on the film and depth of breath."""
    shift = (rng.normal(0, 0.04), rng.normal(0, 0.04))
    angle, zoom, breath = rng.normal(0, 0.04), rng.uniform(0.92, 1.1), rng.normal(0, 0.025)
    rows, columns = grid()
    cos, sin = np.float32(np.cos(angle) / zoom), np.float32(np.sin(angle) / zoom)
    x, y = columns - np.float32(shift[0]), rows - np.float32(shift[1])
    return Film(cos * x + sin * y, cos * y - sin * x, shift, angle, zoom, breath)


# -- the body ------------------------------------------------------------------------------------------------
def draw_body(anatomy: Anatomy, film: Film) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation of a healthy body ``[SIDE, SIDE]``, and the share of air under each pixel, in [0, 1]."""
    x, y = film.x, film.y
    air = draw_air(anatomy, film)
    canvas = draw_soft_tissue(anatomy, film) - (0.95 + 0.1 * y) * air
    canvas += draw_ribs(anatomy, film) + draw_clavicles(anatomy, film)
    canvas += 0.16 * step(0.07 - np.abs(x), 0.02) * (1 + 0.3 * np.cos(40 * y))  # spine, with its disc spaces
    canvas -= 0.18 * bump(x + 0.01, 0.035) * step(-0.18 - y, 0.05)  # trachea
    canvas += air * draw_lung_texture(anatomy, film)
    gut = bump(x - 0.3, 0.13) * bump(y - anatomy.domes[1] - film.breath - 0.12, 0.06)
    return canvas - 0.35 * gut, air  # the air bubble of the stomach, under the image's right dome


def draw_air(anatomy: Anatomy, film: Film) -> np.ndarray:
    """Share of aired lung under each pixel: two lungs, cut by the diaphragm, less the heart and the mediastinum."""
    x, y = film.x, film.y
    lungs = np.clip((1 - lung_depth(anatomy, x, y)) * 3.2, 0, 1)
    lungs = lungs * (2 - lungs) * step(diaphragm(anatomy, film) - y, 0.012)
    heart_x, heart_y, width, height = anatomy.heart
    heart_y += film.breath
    heart = step(1 - ((x - heart_x - 0.25 * (y - heart_y)) / width) ** 2 - ((y - heart_y) / height) ** 2, 0.06)
    knob = step(1 - ((x - 0.1) ** 2 + (y + 0.28) ** 2) / anatomy.aorta**2 / 2, 0.1)
    middle = step(anatomy.mediastinum + 0.05 * y - np.abs(x), 0.02)
    return lungs * (1 - 0.92 * heart) * (1 - 0.6 * knob) * (1 - 0.95 * middle)


def diaphragm(anatomy: Anatomy, film: Film) -> np.ndarray:
    """Height ``y`` of the diaphragm over each pixel: a dome on each side that falls off into the lateral angle."""
    dome = np.where(film.x < 0, anatomy.domes[0], anatomy.domes[1]).astype(np.float32)
    return dome + film.breath + anatomy.dome_bend * (np.abs(film.x) - np.float32(anatomy.lung_axis - 0.06)) ** 2


def draw_soft_tissue(anatomy: Anatomy, film: Film) -> np.ndarray:
    """Chest wall, neck and shoulders against the air around them, breasts, and a smooth haze of fat and muscle."""
    x, y = film.x, film.y
    across = np.abs(x)
    shoulder = -0.98 + anatomy.shoulder * np.maximum(across - 0.22, 0) + 0.25 * np.maximum(across - 0.75, 0)
    wall = anatomy.lung_axis + anatomy.lung_width + 0.16 + 0.1 * y**2
    body = step(y - shoulder, 0.03) * step(wall + 0.25 * step(-0.35 - y, 0.08) - across, 0.03)
    body *= 1.5 + 0.25 * step(y - 0.5, 0.2) - 0.25 * across**2
    bosom = ((across - 0.45) / 0.34) ** 2 + ((y - 0.2) / 0.36) ** 2
    body += anatomy.breast * step(1 - bosom, 0.12)
    return body + 0.13 * upsample(np.reshape(anatomy.haze, (5, 5)))


def draw_ribs(anatomy: Anatomy, film: Film) -> np.ndarray:
    """Posterior ribs, steep and clear, and anterior ribs, the other way and fainter, over the rib cage."""
    across, y = np.abs(film.x), film.y
    cage = step(1.25 - lung_depth(anatomy, film.x, y), 0.1) * step(0.6 - y, 0.15)
    back = (y + 0.2 * across - 0.75 * across**2) / anatomy.rib_spacing + anatomy.rib_phase
    front = (y - 0.55 * across + 0.1 * across**2) / (1.15 * anatomy.rib_spacing) + 1.7 * anatomy.rib_phase
    ribs = plate(back) * (0.65 + 0.5 * across) * step(across - 0.06, 0.02)
    ribs += 0.55 * plate(front) * step(across - 0.36, 0.06)
    return anatomy.rib_depth * cage * ribs


def draw_clavicles(anatomy: Anatomy, film: Film) -> np.ndarray:
    """Two slender bones over the apices."""
    across, y = np.abs(film.x), film.y
    height, slope, bend = anatomy.clavicle
    line = height + slope * (across - 0.1) + bend * (across - 0.35) ** 2 * np.sign(across - 0.35)
    ends = step(across - 0.07, 0.02) * step(0.72 - across, 0.03)
    return 0.9 * max(anatomy.rib_depth, 0.15) * ends * step(0.035 - np.abs(y - line), 0.008)


def draw_lung_texture(anatomy: Anatomy, film: Film) -> np.ndarray:
    """Hilar shadows, branching vessels and a fine interstitial grain; to be weighed by the air under it."""
    rng = np.random.default_rng(anatomy.seed)
    across = np.abs(film.x) - 0.2
    hila = np.exp(-(across**2 / 0.012 + (film.y + 0.05) ** 2 / 0.035))
    grain = smooth_noise(rng, (16, 32, 64))
    vessels = draw_strokes(*film.pixel(*_vessels(rng, anatomy)))
    return 0.16 * hila + anatomy.texture * grain + 0.2 * vessels


def _vessels(rng: Generator, anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Points of vessels that fan out from both hila, denser where the vessel is thicker: two arrays ``[P]``."""
    side = np.repeat((-1.0, 1.0), 20)[:, None]
    angle = rng.uniform(-1.9, 1.7, (40, 1))
    length = rng.uniform(0.2, 0.62, (40, 1))
    along = np.linspace(0, 1, 90)[None] ** 1.4
    angle = angle + rng.normal(0, 0.7, (40, 1)) * along
    spread = 0.016 * (1 - along) ** 2 * rng.standard_normal(along.shape)
    x = side * (0.17 + length * along * np.cos(angle) + spread)
    y = -0.02 + 1.2 * length * along * np.sin(angle) + spread
    return x.ravel(), y.ravel()


def draw_distractors(rng: Generator, anatomy: Anatomy, film: Film) -> np.ndarray:
    """Harmless round things that any class may have: nipples, calcified dots and vessels seen end-on."""
    canvas = np.zeros((SIDE, SIDE), np.float32)
    if rng.random() < 0.3:
        height, depth = rng.uniform(0.2, 0.34), rng.uniform(0.1, 0.3)
        for side in (-1, 1):
            _add_disc(canvas, film, (side * rng.uniform(0.45, 0.52), height), rng.uniform(0.03, 0.05), depth, 4)
    for _ in range(rng.poisson(0.6)):
        spot = lung_point(rng, anatomy, int(rng.choice((-1, 1))))
        _add_disc(canvas, film, spot, rng.uniform(0.012, 0.028), 0.7, 4)
    for _ in range(rng.poisson(1.2)):
        spot = (rng.choice((-1, 1)) * rng.uniform(0.18, 0.32), rng.uniform(-0.25, 0.2))
        _add_disc(canvas, film, spot, rng.uniform(0.02, 0.045), rng.uniform(0.15, 0.35), 4)
    return canvas


# -- lesions -------------------------------------------------------------------------------------------------
def draw_lesion(lesion: Lesion, anatomy: Anatomy, film: Film, air: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lesion's added attenuation ``[SIDE, SIDE]`` and its mask, bool of the same shape."""
    if lesion.kind == "nodule":
        return _draw_nodules(lesion, anatomy, film)
    if lesion.kind == "consolidation":
        return _draw_consolidation(lesion, film, air)
    return _draw_effusion(lesion, anatomy, film, air)


def _draw_nodules(lesion: Lesion, anatomy: Anatomy, film: Film) -> tuple[np.ndarray, np.ndarray]:
    """One to four round shadows, all soft (``edge`` 2), well defined (6) or spiculated (0)."""
    rng = np.random.default_rng(lesion.seed)
    canvas = np.zeros((SIDE, SIDE), np.float32)
    spots = [lesion.spot] + [lung_point(rng, anatomy, int(rng.choice((-1, 1)))) for _ in range(rng.choice(4, p=MORE))]
    for spot in spots:
        dx, dy = film.x - np.float32(spot[0]), film.y - np.float32(spot[1])
        radius = np.full_like(dx, lesion.extent * rng.uniform(0.8, 1.1))
        if lesion.edge == 0:
            angle, spikes = np.arctan2(dy, dx), rng.uniform(0, 2 * np.pi, 3)
            for count, turn in zip((5, 7, 11), spikes, strict=True):
                radius *= 1 + 0.1 * np.cos(count * angle + np.float32(turn))
        shape = np.exp(np.log(MASK_LEVEL) * ((dx**2 + dy**2) / radius**2) ** ((lesion.edge or 3.0) / 2))
        canvas = np.maximum(canvas, shape)
    return lesion.depth * canvas, canvas > MASK_LEVEL


def _draw_consolidation(lesion: Lesion, film: Film, air: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A large ragged shadow in aired lung with open bronchi in it; half of them end at a straight lobar border."""
    rng = np.random.default_rng(lesion.seed)
    dx, dy = film.x - lesion.spot[0], film.y - lesion.spot[1]
    ragged = 1 - (dx**2 + (0.8 * dy) ** 2) / lesion.extent**2 + 0.45 * smooth_noise(rng, (8, 16))
    shape = np.clip(1.6 * ragged, 0, 1) * air
    if lesion.edge > 0:
        shape *= step(dy + 0.6 * (lesion.edge - 0.5) * dx + 0.3 * lesion.extent, 0.015)
    bronchi = np.exp(-((smooth_noise(rng, (8, 16)) / 0.15) ** 2))
    patches = 1 + 0.35 * smooth_noise(rng, (16, 32))
    return lesion.depth * shape * patches * (1 - 0.35 * bronchi), shape > MASK_LEVEL


def _draw_effusion(lesion: Lesion, anatomy: Anatomy, film: Film, air: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fluid on the diaphragm of one side: its upper border is a meniscus that climbs along the lateral wall."""
    x = lesion.side * film.x
    wall = anatomy.lung_axis + anatomy.lung_width
    lateral = np.clip((x - anatomy.mediastinum) / (wall - anatomy.mediastinum), 0, 1.2)
    level = anatomy.domes[lesion.side > 0] + film.breath - lesion.extent - lesion.edge * (lateral**3 - 0.15)
    shape = air * step(film.y - level, 0.02) * (x > 0)
    return lesion.depth * shape, shape > MASK_LEVEL


# -- things on the film, alike in every class ----------------------------------------------------------------
def draw_devices(rng: Generator, film: Film) -> np.ndarray:
    """Electrodes with their leads, tubes and lines, a pacemaker: attenuation, drawn whatever the class."""
    canvas = np.zeros((SIDE, SIDE), np.float32)
    strokes = []
    for _ in range(rng.choice((0, 1, 3), p=(0.7, 0.15, 0.15))):
        spot = rng.uniform(-0.65, 0.65), rng.uniform(-0.5, 0.6)
        _add_disc(canvas, film, spot, rng.uniform(0.035, 0.06), rng.uniform(0.3, 0.8), 8)
        strokes.append(curve(spot, (rng.uniform(-1, 1), rng.uniform(0.9, 1.1)), rng.normal(0, 0.2)))
    if rng.random() < 0.2:  # a breathing or feeding tube along the midline
        strokes.append(curve((0.0, -1.1), (rng.normal(0, 0.05), rng.choice((-0.3, 0.7))), rng.normal(0, 0.03)))
    if rng.random() < 0.2:  # a central line from either side
        start = (rng.choice((-1, 1)) * rng.uniform(0.4, 0.6), -0.6)
        strokes.append(curve(start, (-0.08, rng.uniform(-0.2, 0.1)), rng.normal(0, 0.15)))
    if rng.random() < 0.08:
        spot = rng.choice((-1, 1)) * rng.uniform(0.45, 0.6), rng.uniform(-0.5, -0.3)
        _add_disc(canvas, film, spot, rng.uniform(0.07, 0.1), 1.0, 16)
        strokes.append(curve(spot, (rng.uniform(0, 0.2), 0.35), rng.normal(0, 0.2)))
    for stroke in strokes:
        canvas += rng.uniform(0.12, 0.45) * draw_strokes(*film.pixel(*stroke))
    return canvas


def expose(rng: Generator, canvas: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """Attenuation to a uint8 film: uneven beam, blur, quantum noise, then an automatic window and a film curve."""
    rows, columns = grid()
    beam = rng.normal(0, 0.14) * columns + rng.normal(0, 0.08) * rows + rng.uniform(0, 0.15) * (rows**2 + columns**2)
    canvas = canvas + beam.astype(np.float32)
    low, high = np.quantile(canvas[8:-8:4, 8:-8:4], (0.02, 0.98))
    blurred = blur(canvas + lesion, rng.uniform(0.4, 1.0))
    dose = rng.uniform(6.8, 9.5)
    blurred += np.exp(0.5 * (blurred - dose)) * rng.standard_normal((SIDE, SIDE), np.float32)
    low, high = low + rng.normal(0, 0.1), high + rng.normal(0.1, 0.15)
    grey = np.clip((blurred - low) / max(high - low, 0.5), 0, 1.15) / 1.15
    grey = grey ** np.float32(rng.uniform(0.75, 1.35)) * np.float32(rng.uniform(0.78, 1.0)) + np.float32(
        rng.uniform(0, 0.08)
    )
    return np.clip(255 * grey + 0.5, 0, 255).astype(np.uint8)


def label_film(rng: Generator, image: np.ndarray) -> None:
    """Collimate and mark the film in place: shuttered borders, and a lead letter that says nothing of the class."""
    if rng.random() < 0.35:
        top, bottom, left, right = rng.integers(0, 9, 4)
        shutter = np.ones((SIDE, SIDE), bool)
        shutter[top : SIDE - bottom, left : SIDE - right] = False
        image[shutter] = rng.integers(0, 30)
    if rng.random() < 0.6:
        letter = np.array([[int(dot) for dot in line] for line in GLYPHS[str(rng.choice(("L", "R")))]], bool)
        letter = letter.repeat(2, axis=0).repeat(2, axis=1)
        row, column = rng.integers(6, 30), rng.choice((rng.integers(6, 20), rng.integers(102, 116)))
        image[row : row + 10, column : column + 6][letter] = rng.integers(200, 256)


def _add_disc(
    canvas: np.ndarray, film: Film, spot: tuple[float, float], radius: float, depth: float, edge: int
) -> None:
    """Add a disc (``edge`` 2 is soft, 8 is sharp; 16 is a rounded square) in place, on the window around it alone."""
    row, column = (int(value) for value in film.pixel(*spot))
    reach = int(radius * SIDE) + 2
    window = (
        slice(max(row - reach, 0), max(row + reach + 1, 0)),
        slice(max(column - reach, 0), max(column + reach + 1, 0)),
    )
    dx, dy = (film.x[window] - spot[0]) / radius, (film.y[window] - spot[1]) / radius
    if edge == 16:
        distance = dx**8 + dy**8
    else:
        distance = (dx**2 + dy**2) ** (edge / 2)
    canvas[window] += depth * np.exp(-1.4 * distance)
