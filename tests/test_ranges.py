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
        (partial(ranges.at_least, least=2), (2, 3, 2**31 - 1), (1, -5, 2**31)),
        (partial(ranges.at_least, least=2, most=9), (2, 9), (1, 10)),
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


def test_a_text_yes_or_half_of_one_is_no_whole_number() -> None:
    for value in (1.5, 2.0, True, "3", None, [3]):
        with pytest.raises(UsageError, match=r"^epochs must be a whole number, got "):
            ranges.at_least("epochs", value, 1)
    for check in (ranges.between, ranges.positive, ranges.not_negative, ranges.share, ranges.positive_share):
        for value in (True, "0.5", [0.5]):
            with pytest.raises(UsageError, match=r"^lr must be a number, got "):
                check("lr", value)
    with pytest.raises(UsageError, match=r"at most .* more than 30 digits"):
        ranges.at_least("epochs", 16**10_000, 1)
    for value in (16**10_000, -(16**10_000)):
        with pytest.raises(UsageError, match=r"^lr must be a number that .* more than 30 digits\.$"):
            ranges.positive("lr", value)
    with pytest.raises(UsageError, match=r"at least 1, got a number of more than 30 digits"):
        ranges.at_least("epochs", -(16**10_000), 1)
