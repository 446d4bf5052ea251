"""Every bound of :mod:`stillroom.ranges`: what is just within passes, what is on or beyond it is refused by name."""

from __future__ import annotations

from functools import partial
from math import inf, nan, nextafter

import pytest

from stillroom import ranges
from stillroom.errors import UsageError

TINY, NEARLY_ONE, OVER_ONE = 5e-324, nextafter(1, 0), nextafter(1, 2)


@pytest.mark.parametrize(
    ("check", "within", "beyond"),
    [
        (partial(ranges.at_least, least=2), (2, 3), (1, -5)),
        (ranges.between, (TINY, NEARLY_ONE), (0.0, 1.0, -0.1, nan)),
        (partial(ranges.between, upper=0.9), (0.899,), (0.9, 1.0)),
        (ranges.positive, (TINY, 1e300), (0.0, -1.0, inf, nan)),
        (ranges.not_negative, (0.0, 1e300), (-TINY, inf, nan)),
        (ranges.share, (0.0, 1.0), (-TINY, OVER_ONE, nan)),
        (ranges.positive_share, (TINY, 1.0), (0.0, OVER_ONE, nan)),
    ],
)
def test_bounds(check: partial, within: tuple[float, ...], beyond: tuple[float, ...]) -> None:
    for value in within:
        check("lr", value)
    for value in beyond:
        with pytest.raises(UsageError, match=rf"^lr .*got {value}\.$".replace("+", r"\+")):
            check("lr", value)
