"""The networks of the once-for-all search space by name: what they are and what they cost. No torch.

The space is that of the MobileNetV3 supernets of Cai et al., "Once-for-All" (ICLR 2020): five stages of two to four
blocks; every block has a kernel of 3, 5 or 7 and expands its input 3, 4 or 6 times; the channels are those of
MobileNetV3-Large times 1.0 or 1.2. About 10^19 networks for each width.

A name says all of it, one digit per block, stages parted by hyphens::

    ofa_w120_r236_k353-5535-7535-3573-3353_e343-4463-6634-6664-6663
        |    |    |                        |
        |    |    kernels                  expansions
        |    side in pixels of the images it is made for; left out where that is 224
        width in percent

That one is OFA-595, published as ``flops@595M_top1@80.0_finetune@75``; it is called ``ofa595`` for short.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import NamedTuple

from stillroom.errors import UsageError

PREFIX = "ofa_"
WIDTHS, DEPTHS, KERNELS, EXPANSIONS = (1.0, 1.2), (2, 3, 4), (3, 5, 7), (3, 4, 6)
RESOLUTION = 224
"""The largest images that the supernets were trained on; the smallest had 128 px (160 px at width 1.2)."""
SMALLEST = 28
"""At fewer pixels whole stages see a single position."""
GRAMMAR = "ofa_w100_k33-33-33-33-33_e33-33-33-33-33"

_NAME = re.compile(r"ofa_w(\d+)(?:_r([1-9]\d*))?_k(\d+(?:-\d+)*)_e(\d+(?:-\d+)*)")
_STEM, _FINAL, _MIX = 16, 960, 1280


class _Stage(NamedTuple):
    width: int
    stride: int
    hard_swish: bool
    squeeze: bool


_STAGES = (
    _Stage(24, 2, False, False),
    _Stage(40, 2, False, True),
    _Stage(80, 2, True, False),
    _Stage(112, 1, True, True),
    _Stage(160, 2, True, True),
)


class Block(NamedTuple):
    """One inverted residual block (Sandler et al., 2018): ``inputs`` to ``middle`` to ``outputs`` channels.

    The stride is that of its depthwise convolution. ``hard_swish`` stands for ReLU where it is False. ``squeeze``
    is the number of hidden channels of its squeeze-and-excitation, 0 for none.
    """

    inputs: int
    middle: int
    outputs: int
    kernel: int
    stride: int
    hard_swish: bool
    squeeze: int

    @property
    def residual(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs


@dataclass(frozen=True)
class OfaConfig:
    """A network of the space.

    Attributes:
        width: 1.0 or 1.2, multiplies MobileNetV3-Large's channels.
        kernels: for each of the five stages the blocks' kernels.
        expansions: for each of the five stages how many times the blocks expand their input.
        resolution: side in pixels of the images it is made for; at least 28. It takes others too.

    Raises:
        UsageError: it is no network of the space.
    """

    width: float
    kernels: tuple[tuple[int, ...], ...]
    expansions: tuple[tuple[int, ...], ...]
    resolution: int = RESOLUTION

    def __post_init__(self) -> None:
        name = self.name
        if self.width not in WIDTHS:
            raise UsageError(f"{name}: the width is w100 or w120, in percent.")
        if self.resolution < SMALLEST:
            raise UsageError(f"{name}: the side of its images is at least r{SMALLEST}, in pixels.")
        for sort, stages, allowed in (("k", self.kernels, KERNELS), ("e", self.expansions, EXPANSIONS)):
            if len(stages) != len(_STAGES):
                raise UsageError(f"{name}: after {sort} stand five stages parted by hyphens, here {len(stages)}.")
            for number, stage in enumerate(stages, 1):
                if len(stage) not in DEPTHS:
                    raise UsageError(f"{name}: a stage has 2, 3 or 4 blocks, stage {number} after {sort} {len(stage)}.")
                wrong = next((digit for digit in stage if digit not in allowed), None)
                if wrong is not None:
                    what = "a kernel is 3, 5 or 7" if sort == "k" else "an expansion is 3, 4 or 6"
                    raise UsageError(f"{name}: {what}, stage {number} has {wrong}.")
        for number, (kernels, expansions) in enumerate(zip(self.kernels, self.expansions, strict=True), 1):
            if len(kernels) != len(expansions):
                raise UsageError(
                    f"{name}: stage {number} has {len(kernels)} kernels, but {len(expansions)} expansions; "
                    "every block has one of each."
                )

    @property
    def name(self) -> str:
        """What it can be built by, see :func:`config_of`."""
        kernels, expansions = (
            "-".join("".join(map(str, stage)) for stage in stages) for stages in (self.kernels, self.expansions)
        )
        side = "" if self.resolution == RESOLUTION else f"_r{self.resolution}"
        return f"{PREFIX}w{round(100 * self.width)}{side}_k{kernels}_e{expansions}"

    @property
    def stem(self) -> int:
        """Channels of the first convolution, and of the first block."""
        return rounded(_STEM * self.width)

    @property
    def final(self) -> int:
        """Channels of the last feature map."""
        return rounded(_FINAL * self.width)

    @property
    def mix(self) -> int:
        """Channels that the classifier sees."""
        return rounded(_MIX * self.width)

    def blocks(self) -> list[Block]:
        """The first block, which does not expand, and those of the five stages."""
        found = [Block(self.stem, self.stem, self.stem, 3, 1, False, 0)]
        for stage, kernels, expansions in zip(_STAGES, self.kernels, self.expansions, strict=True):
            outputs = rounded(stage.width * self.width)
            for number, (kernel, expansion) in enumerate(zip(kernels, expansions, strict=True)):
                inputs = found[-1].outputs
                middle = inputs * expansion
                stride = stage.stride if number == 0 else 1
                squeeze = rounded(middle // 4) if stage.squeeze else 0
                found.append(Block(inputs, middle, outputs, kernel, stride, stage.hard_swish, squeeze))
        return found

    def parameters(self, classes: int) -> int:
        """Trainable numbers, with a classifier for so many classes."""
        total = 27 * self.stem + 2 * self.stem
        for block in self.blocks():
            expand = block.middle * (block.inputs + 2) if block.middle != block.inputs else 0
            squeeze = 2 * block.middle * block.squeeze + block.middle + block.squeeze if block.squeeze else 0
            total += expand + block.middle * (block.kernel**2 + 2) + squeeze + block.outputs * (block.middle + 2)
        total += self.final * (self.blocks()[-1].outputs + 2) + self.final * self.mix
        return total + (self.mix + 1) * classes

    def macs(self, size: int, classes: int) -> int:
        """Multiply-accumulates for one image of ``size`` pixels' side."""
        side = _halved(size)
        total = 27 * self.stem * side**2
        for block in self.blocks():
            expand = block.inputs * block.middle * side**2 if block.middle != block.inputs else 0
            side = _halved(side) if block.stride == 2 else side
            total += expand + block.middle * (block.kernel**2 + block.outputs) * side**2
            total += 2 * block.middle * block.squeeze
        return total + self.blocks()[-1].outputs * self.final * side**2 + self.mix * (self.final + classes)


OFA595 = OfaConfig(
    width=1.2,
    kernels=((3, 5, 3), (5, 5, 3, 5), (7, 5, 3, 5), (3, 5, 7, 3), (3, 3, 5, 3)),
    expansions=((3, 4, 3), (4, 4, 6, 3), (6, 6, 3, 4), (6, 6, 6, 4), (6, 6, 6, 3)),
    resolution=236,
)
"""595 M multiply-accumulates at 236 px; 80.0 % of ImageNet's validation images right, as published."""


def config_of(name: str) -> OfaConfig:
    """The network that a name of the space, or ``ofa595``, stands for. Raises UsageError where it is none."""
    if name == "ofa595":
        return OFA595
    found = _NAME.fullmatch(name)
    if found is None:
        raise UsageError(
            f"{name} is no network of the OFA space. Its names look like {GRAMMAR}: width w100 or w120; after k the "
            "kernels (3, 5, 7) and after e the expansions (3, 4, 6) of five stages with 2 to 4 blocks each, one digit "
            f"per block; _r and a side in pixels may follow the width, from r{SMALLEST}."
        )
    width, resolution, kernels, expansions = found.groups()
    return OfaConfig(
        width=int(width) / 100,
        kernels=_digits(kernels),
        expansions=_digits(expansions),
        resolution=int(resolution or RESOLUTION),
    )


def sample(count: int, *, seed: int = 0) -> list[OfaConfig]:
    """``count`` different networks from the smallest to the largest, at least four; the same for the same seed.

    Drawing every choice evenly would give mid-sized networks alone. So each network has a level of its own, from
    0 to 1, about which its choices vary.
    """
    chance = random.Random(seed)
    ends = [_uniform(width, 0) for width in WIDTHS] + [_uniform(width, 2) for width in WIDTHS]
    found = dict.fromkeys(ends)
    while len(found) < count:
        level = 2 * chance.random()
        depths = [DEPTHS[_near(level, chance)] for _ in _STAGES]
        found[
            OfaConfig(
                width=chance.choice(WIDTHS),
                kernels=tuple(tuple(KERNELS[_near(level, chance)] for _ in range(depth)) for depth in depths),
                expansions=tuple(tuple(EXPANSIONS[_near(level, chance)] for _ in range(depth)) for depth in depths),
            )
        ] = None
    return list(found)


def rounded(channels: float) -> int:
    """To a multiple of 8, at least 8, and never down by more than a tenth: the rule of the MobileNets."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


def _uniform(width: float, choice: int) -> OfaConfig:
    depth = DEPTHS[choice]
    return OfaConfig(width, ((KERNELS[choice],) * depth,) * 5, ((EXPANSIONS[choice],) * depth,) * 5)


def _near(level: float, chance: random.Random) -> int:
    return min(2, max(0, round(chance.gauss(level, 0.7))))


def _digits(stages: str) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(digit) for digit in stage) for stage in stages.split("-"))


def _halved(side: int) -> int:
    return (side + 1) // 2
