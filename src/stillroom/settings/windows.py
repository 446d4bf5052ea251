"""Windows: which grey values of a DICOM image are shown from black to white, by numbers or by the name of a tissue."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stillroom.errors import UsageError, nearest

PRESETS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "stroke": (40.0, 40.0),
    "subdural": (75.0, 215.0),
    "soft-tissue": (50.0, 400.0),
    "liver": (30.0, 150.0),
}
"""Centre and width in Hounsfield units, as radiologists' workstations commonly have them."""


@dataclass(frozen=True)
class Window:
    """Grey values shown from black to white, in the image's own units after its rescaling (DICOM PS3.3, C.11.2.1.2).

    Attributes:
        centre, width: finite, the width above 1.
        name: of :data:`PRESETS`, which are in Hounsfield units and fit CT alone; empty for numbers.
    """

    centre: float
    width: float
    name: str = ""

    def __str__(self) -> str:
        numbers = f"{self.centre:g},{self.width:g}"
        return f"{self.name} ({numbers})" if self.name else numbers


def parse_window(text: str) -> Window | None:
    """``lung`` or ``40,400`` to a window; None for an empty text, which leaves it to each file.

    Raises:
        UsageError: no such name, or no two numbers of which the second is above 1.
    """
    if not text.strip():
        return None
    name = text.strip().casefold().replace("_", "-").replace(" ", "-")
    if name in PRESETS:
        return Window(*PRESETS[name], name)
    try:
        centre, width = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"window must be CENTER,WIDTH, such as 40,400, or one of {', '.join(PRESETS)}; got {text!r}."
            f"{nearest(name, list(PRESETS))}"
        ) from None
    if not (math.isfinite(centre) and math.isfinite(width) and width > 1):
        raise UsageError(f"window must be two finite numbers, the second (the width) above 1; got {text!r}.")
    return Window(centre, width)
