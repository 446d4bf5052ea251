"""How often which verdict comes on heat maps whose truth is known, because networks and maps are built, not trained.

Every network looks for something that is put into its images: a pattern in a square of 1, 2, 5 or 10 % of the image, in the
middle, in a corner or anywhere; a texture in a tenth of it; a soft patch, no sharper than its surroundings; or the brightness
of the whole image, which no map can place. The maps are the truth (`perfect`), the truth under noise, the truth as coarse as
a layer of 8 or 4 places a side, and wrong ones: smooth noise, noise by pixel, the truth turned inside out, and a blob in the
middle, whatever the network.

    python proofs/heat_maps.py [--studies 400] [--seed 0]

A study draws 24, 32 or 64 of 400 test images, half of which are decided positive, or 20 or 8 of them, and judges them, all as
a run does. Images are measured once, and drawn anew for every study. What the network would draw with random weights is its
map of another place, one for each of a study's twins; for the blob it is the blob. Exit code 1 where a perfect map of what
has a place is called faithful in less than 90 % of the studies, or a wrong one (random, pixels, inverse) ever is.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from recorded import carry_out, parser
from torch import Tensor

from stillroom.explanation.claims import FAITHFUL, FEWEST_CHECKED, VERDICTS, Verdict, judge
from stillroom.explanation.controls import TRIVIAL, blur, stretched, trivial_maps
from stillroom.explanation.faithfulness import deletion_insertion
from stillroom.explanation.judging import BASELINES, TWINS, sanity_images, spread_evenly
from stillroom.explanation.means import mean_with_t_interval
from stillroom.explanation.sampling import sampling_order

SIDE, POOL, TESTED = 40, 240, 400
SQUARES = {1: 4, 2: 6, 5: 9, 10: 13}
"""Per cent of the image, about, and the square's side."""
KINDS = (*(f"{share} % {place}" for place in ("centre", "corner") for share in SQUARES), "5 % anywhere", "texture",
         "soft", "brightness")  # fmt: skip
WRONG = ("random", "pixels", "inverse")
DRAWN = (24, 32, 64)
POSITIVES = (200, 20, 8)
LEAST_FAITHFUL = 0.9

Chance = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Planted:
    """A network whose reasons are known.

    Attributes:
        images: ``[n, 1, S, S]`` in which it finds something.
        truth: ``[n, S, S]`` 1 where that is, 0 elsewhere.
        chance: ``[n, 1, S, S]`` to probabilities ``[n, 2]``, the second of positive.
    """

    images: Tensor
    truth: Tensor
    chance: Chance


def planted(kind: str, seed: int, count: int = POOL) -> Planted:
    """The network of this kind with so many images."""
    luck = torch.Generator().manual_seed(seed)
    images = 0.3 + 0.3 * smooth(count, luck) + 0.05 * torch.randn(count, SIDE, SIDE, generator=luck)
    strength = (1 + 0.5 * torch.rand(count, generator=luck))[:, None, None]
    if kind == "brightness":
        images = images + 0.2 * strength - 0.2
        return Planted(images[:, None], torch.ones_like(images), _chance(lambda x: 20 * (x.mean(dim=(1, 2, 3)) - 0.4)))
    if kind == "soft":
        truth = torch.zeros_like(images)
        truth[:, 4:13, 26:35] = 1
        images = images + 0.35 * strength * blur(truth, 3.0)
        return Planted(
            images[:, None], truth, _chance(lambda x: 30 * ((x[:, 0] * truth[0]).sum(dim=(1, 2)) / 81 - 0.6))
        )
    if kind == "texture":
        return _texture(images, strength, luck)
    share, place = kind.split(" % ")
    side = SQUARES[int(share)]
    # As many pixels above as below 0, all of one size: no part of the square says more than another.
    signs = torch.ones(side * side)
    signs[torch.randperm(side * side, generator=luck)[: side * side // 2]] = -1
    pattern = signs.view(side, side)
    last = SIDE - side
    if place == "anywhere":
        tops, lefts = torch.randint(0, last + 1, (2, count), generator=luck)
    else:
        tops, lefts = (torch.full((count,), last // 2 if place == "centre" else end) for end in (2, last - 2))
    truth = torch.zeros_like(images)
    for number, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
        truth[number, top : top + side, left : left + side] = 1
        images[number, top : top + side, left : left + side] += 0.15 * strength[number] * pattern

    def logit(given: Tensor) -> Tensor:
        answers = F.conv2d(given, pattern[None, None] / side**2)[:, 0]
        seen = answers.amax(dim=(1, 2)) if place == "anywhere" else answers[:, tops[0], lefts[0]]
        return 60 * (seen - 0.09)

    return Planted(images[:, None], truth, _chance(logit))


def _texture(images: Tensor, strength: Tensor, luck: torch.Generator) -> Planted:
    """A chequerboard in a tenth of the image, of any shape; the network looks at how much neighbours differ."""
    field = smooth(len(images), luck, places=5)
    truth = (field > field.flatten(1).quantile(0.9, dim=1)[:, None, None]).float()
    places = torch.arange(SIDE)
    board = 1.0 - 2 * ((places[:, None] + places[None]) % 2)
    images = blur(images, 1.0) + 0.1 * strength * truth * board
    edge = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])[None, None] / 16

    def logit(given: Tensor) -> Tensor:
        rough = F.avg_pool2d(F.conv2d(given, edge).abs(), 5, 1).flatten(1)
        return 120 * (rough.topk(100, dim=1).values.mean(dim=1) - 0.05)

    return Planted(images[:, None], truth, _chance(logit))


def _chance(logit: Callable[[Tensor], Tensor]) -> Chance:
    def ask(images: Tensor) -> Tensor:
        found = logit(images).sigmoid()
        return torch.stack([1 - found, found], dim=1)

    return ask


def smooth(count: int, luck: torch.Generator, places: int = 7) -> Tensor:
    """Smooth noise in [0, 1], ``[n, S, S]``."""
    field = torch.randn(count, 1, places, places, generator=luck)
    return stretched(F.interpolate(field, (SIDE, SIDE), mode="bicubic", align_corners=False)[:, 0])


def planted_maps(truth: Tensor, seed: int) -> dict[str, Tensor]:
    """Right and wrong maps ``[n, S, S]`` by name."""
    luck, count = torch.Generator().manual_seed(seed), len(truth)

    def coarse(places: int) -> Tensor:
        return F.interpolate(F.adaptive_avg_pool2d(truth[:, None], places), (SIDE, SIDE), mode="bilinear")[:, 0]

    line = torch.linspace(-0.5, 0.5, SIDE)
    return {
        "perfect": truth,
        "noisy": stretched(blur(truth, 0.05 * SIDE)) + 0.5 * smooth(count, luck),
        "8 places": coarse(8),
        "4 places": coarse(4),
        "random": smooth(count, luck),
        "pixels": torch.rand(count, SIDE, SIDE, generator=luck),
        "inverse": 1 - truth,
        "centre": torch.exp(-(line[:, None] ** 2 + line[None] ** 2) / 0.1).expand(count, -1, -1),
    }


@dataclass(frozen=True)
class Measured:
    """A pool of images, measured.

    Attributes:
        gaps: ``[n]`` by map, trivial ones too.
        reach: ``[n]``, what hiding everything takes from the answer.
        elsewhere: ``[S * S, n]`` by map, its correlation with itself moved by that much, round the border; NaN of flat ones.
    """

    gaps: Mapping[str, np.ndarray]
    reach: np.ndarray
    elsewhere: Mapping[str, np.ndarray]


def measured(network: Planted, seed: int) -> Measured:
    """Every map's gap on every image that the network finds something in, as a run measures it."""
    found = network.chance(network.images)[:, 1] > 0.5
    images = network.images[found]
    own = planted_maps(network.truth[found], seed)
    maps = own | {f"trivial {name}": heat for name, heat in trivial_maps(images, seed=seed).items()}
    classes = torch.ones(len(images), dtype=torch.int64)
    curves = [
        deletion_insertion(network.chance, images, torch.stack([*maps.values()]), classes, baseline=baseline, seed=seed)
        for baseline in BASELINES
    ]
    gaps = np.mean([each.gap.numpy() for each in curves], axis=0)
    elsewhere = {
        name: np.ones((1, len(images))) if name == "centre" else _elsewhere(heat) for name, heat in own.items()
    }
    return Measured(
        dict(zip(maps, gaps.astype(np.float64), strict=True)),
        np.mean([each.reach[0].numpy() for each in curves], axis=0),
        elsewhere,
    )


def _elsewhere(maps: Tensor) -> np.ndarray:
    waves = torch.fft.fft2((maps - maps.mean(dim=(1, 2), keepdim=True)).double())
    products = torch.fft.ifft2(waves.abs() ** 2).real.flatten(1)
    # Of a flat map nothing is left to be divided by.
    return torch.where(products[:, :1] > 1e-9, products / products[:, :1], torch.nan).T.numpy()


def verdict(pool: Measured, name: str, chosen: np.ndarray, luck: np.random.Generator) -> Verdict:
    """The verdict on these images' maps."""
    own = pool.gaps[name][chosen]
    advantage = {other: mean_with_t_interval(own - pool.gaps[f"trivial {other}"][chosen], None) for other in TRIVIAL}
    table = pool.elsewhere[name]
    checked = chosen[spread_evenly(len(chosen), sanity_images(len(chosen)))]
    correlations = table[np.resize(luck.integers(len(table), size=TWINS), len(checked)), checked]
    enough = np.isfinite(correlations).sum() >= FEWEST_CHECKED
    correlation = mean_with_t_interval(correlations, None) if enough else None
    gap, reach = mean_with_t_interval(own, None), float(pool.reach[chosen].mean())
    return judge(gap, reach, advantage, correlation, len(chosen), "image").verdict


def studies(pool: Measured, drawn: int, positives: int, count: int, seed: int) -> dict[str, dict[str, int]]:
    """How often each verdict comes, by map."""
    found: dict[str, Counter[str]] = {name: Counter() for name in pool.elsewhere}
    decided = (np.arange(TESTED) < positives).astype(np.int64)
    for study in range(count):
        luck = np.random.default_rng([seed, drawn, positives, study])
        judged = int(decided[sampling_order(decided, decided == 1, study)[:drawn]].sum())
        chosen = luck.choice(len(pool.reach), judged, replace=False)
        for name, counted in found.items():
            counted[verdict(pool, name, chosen, luck)] += 1
    return {name: {each: counted[each] for each in VERDICTS} for name, counted in found.items()}


def main() -> None:
    flags = parser(__doc__, name="heat_maps", count=len(KINDS))
    flags.add_argument("--studies", type=int, default=400)
    given = flags.parse_args()
    given.out /= f"{given.studies}-studies"

    def case(_rng: np.random.Generator, number: int) -> dict:
        pool = measured(planted(KINDS[number], given.seed), given.seed)
        mean = {name: float(values.mean()) for name, values in pool.gaps.items()}
        several = {f"{n} of {k}": studies(pool, n, k, given.studies, given.seed) for k in POSITIVES for n in DRAWN}
        return {"gap": mean, "reach": float(pool.reach.mean()), "verdicts": several}

    failed = False
    print("| Evidence | Images, positives | Map | " + " | ".join(VERDICTS) + " |\n| --- | --- | --- |" + " ---: |" * 3)
    for kind, line in zip(KINDS, carry_out(given, case), strict=False):
        for drawn, maps in line["verdicts"].items():
            for name, counted in maps.items():
                shares = {each: counted[each] / given.studies for each in VERDICTS}
                enough = drawn.endswith(f"of {POSITIVES[0]}") and kind != "brightness"
                failed |= enough and name == "perfect" and shares[FAITHFUL] < LEAST_FAITHFUL
                failed |= (name in WRONG or kind == "brightness") and counted[FAITHFUL] > 0
                print(
                    f"| {kind} | {drawn} | {name} | " + " | ".join(f"{share:.1%}" for share in shares.values()) + " |"
                )
        sys.stdout.flush()
    sys.exit(failed)


if __name__ == "__main__":
    main()
