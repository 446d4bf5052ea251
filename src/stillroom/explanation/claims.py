"""What may be said of heat maps, and what must be, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SANITY_LIMIT = 0.5
"""The correlation of a network's maps with those of its random twin must lie below this in size, with its whole interval."""

FEWEST = 20
"""Images or patients below which nothing is called faithful: intervals of fewer are too narrow for skewed gaps."""

FEWEST_CHECKED = 6
"""Maps that are not flat which the check against random weights needs."""

LEAST_GAP = 0.02
"""Insertion minus deletion, in probability, below which a map moves the answer too little to count as its reason."""

_FEW_PATIENTS = 20

Figure = Mapping[str, float | None]


def doubts(
    gap: Figure,
    advantage: Mapping[str, Figure],
    correlation: Figure | None,
    units: int,
    unit: str,
) -> list[str]:
    """Why maps cannot be called faithful, a sentence each; none where they can.

    Args:
        gap: the own maps' insertion minus deletion.
        advantage: trivial map to the figure of the own map's gap minus its gap.
        correlation: with the maps of the random twin; None where too few maps could be compared.
        units: how many images, or patients where they are known, the maps are of.
        unit: ``image`` or ``patient``.
    """
    found = []
    if units < FEWEST:
        found.append(f"They are of {units} {unit}{'s' * (units > 1)} only; nothing is claimed of fewer than {FEWEST}.")
    if gap["low"] is None or gap["low"] < LEAST_GAP:
        found.append(
            f"What they show may move the answer by too little: insertion minus deletion is {_text(gap)}, and its interval "
            f"must lie above {LEAST_GAP:g}."
        )
    for name, figure in advantage.items():
        low = figure["low"]
        if low is None:
            found.append(f"Their advantage over the trivial map {name} has no interval.")
        elif low <= 0:
            found.append(
                f"They are not shown to beat the trivial map {name}: the difference of the gaps is {_text(figure)}."
            )
    if correlation is None:
        found.append("Too few of them are not flat, so whether they depend on what the network learnt cannot be told.")
    elif correlation["low"] is None or correlation["high"] is None:
        found.append("Their correlation with the maps that it draws with random weights has no interval.")
    elif max(abs(correlation["low"]), abs(correlation["high"])) >= SANITY_LIMIT:
        found.append(
            "They may hardly depend on what the network learnt: with random weights it draws maps that correlate with them "
            f"by {_text(correlation)}, and the limit is {SANITY_LIMIT:g}."
        )
    return found


def _text(figure: Figure) -> str:
    if figure["value"] is None:
        return "not defined"
    if figure["low"] is None:
        return f"{figure['value']:z.3f} (no interval)"
    return f"{figure['value']:z.3f} (95 % interval {figure['low']:z.3f} to {figure['high']:z.3f})"


def statement(role: str, found: Mapping[str, Any]) -> str:
    """One sentence on a network's maps, of its part of ``faithfulness``."""
    gaps = {name: control["gap"]["value"] for name, control in found["controls"].items()}
    best = max(gaps, key=lambda name: gaps[name])
    claim = "are faithful" if found["faithful"] else "are not shown to be faithful"
    return (
        f"The {role}'s maps {claim}: insertion minus deletion is {found['gap']['value']:z.3f}, against {gaps[best]:z.3f} of "
        f"the best trivial map ({best})."
    )


def notes(
    count: int,
    *,
    flat: Mapping[str, int],
    checked: int,
    without_road: tuple[int, int] | None,
    undrawn: bool,
    patients: int | None,
    unknown: int,
) -> list[str]:
    """What a reader of the figures must know.

    Args:
        count: number of images.
        flat: role to its number of flat maps.
        checked: images that the check against random weights looked at.
        without_road: the images' side and the greatest one for ROAD, where it was left out.
        undrawn: the data have lesion masks, but none of these images has.
        patients: number of patients, those alone included; None where none is known.
        unknown: images of unknown patient.
    """
    found = ["The class explained is the one that the student decides for, for every network."] if len(flat) > 1 else []
    found += [
        f"The {role}'s map is flat for {empty} of {count} images: nothing in them speaks for the class, or everything alike, "
        "and their pixels come and go in random order."
        for role, empty in flat.items()
        if empty
    ]
    if checked < count:
        found.append(f"The check against random weights is of {checked} of the {count} images.")
    if without_road is not None:
        side, greatest = without_road
        found.append(f"ROAD is left out: it takes too long above {greatest} px, and these images have {side}.")
    if undrawn:
        found.append("No explained image has a lesion drawn on it, so whether maps lie on lesions is not known.")
    if patients is not None and unknown:
        found.append(f"{unknown} images of unknown patient are resampled as a patient each.")
    if patients is not None and patients < _FEW_PATIENTS:
        found.append(f"The intervals rest on {patients} patients only and may be too narrow.")
    return found
