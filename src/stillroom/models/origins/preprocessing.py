"""What a transformers repository says of its images: preprocessor_config.json beside config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stillroom.errors import UsageError
from stillroom.models.normalisation import Normalisation
from stillroom.settings.network_names import READ

FILE = "preprocessor_config.json"
TOLD = "Give --teacher-mean and --teacher-std (of pixels in [0, 1]), or ?mean=...&std=... behind its name."


def normalisation_of(name: str, stated: Mapping[str, Any]) -> Normalisation:
    """Mean and deviation of pixels in [0, 1].

    Raises:
        UsageError: they are not stated, or pixels are not scaled to [0, 1] first.
    """
    factor = stated.get("rescale_factor", 1 / 255)
    if (
        stated.get("do_rescale", True) is not True
        or not _number(factor)
        or not math.isclose(factor, 1 / 255, rel_tol=1e-4)
    ):
        raise UsageError(
            f"{name}: its {FILE} scales pixels by {factor if stated.get('do_rescale', True) else 'nothing'}, not by 1/255, "
            f"which is all that Stillroom does. {TOLD}"
        )
    if stated.get("do_normalize", True) is False:
        return Normalisation((0.0,) * 3, (1.0,) * 3)
    mean: Any = stated.get("image_mean")
    std: Any = stated.get("image_std")
    if not is_three(mean) or not is_three(std):
        raise UsageError(
            f"{name}: its {FILE} states the mean {mean} and the deviation {std}, not three numbers. {TOLD}"
        )
    return Normalisation(tuple(mean), tuple(std))


def side_of(name: str, stated: Mapping[str, Any]) -> int | None:
    """Side in pixels of the square that an image is made to; None where it is not stated.

    Raises:
        UsageError: it is no square.
    """
    crops = stated.get("do_center_crop", "crop_size" in stated) and stated.get("crop_size")
    size = crops or stated.get("size")
    if isinstance(size, Mapping):
        sides = [size[key] for key in ("height", "width", "shortest_edge") if size.get(key)]
    else:
        sides = list(size) if isinstance(size, list | tuple) else [size]
    if sides in ([], [None]):
        return None
    if any(not isinstance(side, int) or side < 1 for side in sides) or len(set(sides)) != 1:
        raise UsageError(f"{name}: its {FILE} makes images of {size} pixels; Stillroom's are square. {TOLD}")
    return sides[0]


def refuse_keywords(name: str, told: Mapping[str, str]) -> None:
    """Raises UsageError where a name has options that are keywords of a constructor."""
    if others := [key for key in told if key not in READ]:
        raise UsageError(f"{name}: {', '.join(others)} cannot be set, for its config says all of its network.")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_three(values: Any) -> bool:
    """Whether a file states one number for each colour."""
    return isinstance(values, list | tuple) and len(values) == 3 and all(map(_number, values))
