"""What may be said of heat maps, and what must be, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, get_args

from stillroom.shown import counted

Verdict = Literal["faithful", "not faithful", "not shown: too few images"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
FAITHFUL, NOT_FAITHFUL, NOT_SHOWN = VERDICTS

SANITY_LIMIT = 0.5
"""The correlation of a network's maps with those of its random twin must lie below this in size, with its whole interval."""

FEWEST = 12
"""Images or patients below which nothing is said of maps: intervals of fewer say too little of their own width."""

FEWEST_CHECKED = 6
"""Maps that are not flat which the check against random weights needs."""

LEAST_SHARE, WORTHWHILE_SHARE = 0.1, 0.3
"""Of what hiding everything does to the answer: more must be shown for a map to be faithful, and less than the second is not
worth the name. Where an interval is narrower than what lies between, there is a verdict."""

LEAST_GAP, WORTHWHILE_GAP = 0.02, 0.06
"""The same in probability, for networks whose answer hardly moves whatever is hidden."""

LABELS: dict[Verdict, str] = {
    FAITHFUL: "maps faithful",
    NOT_FAITHFUL: "maps not faithful",
    NOT_SHOWN: NOT_SHOWN,
}
"""The verdict where it stands before the statement."""

_FEW_PATIENTS = 20
_ROUNDING = 1e-6

Figure = Mapping[str, float | None]


@dataclass(frozen=True)
class Claim:
    """One of the things that must hold of faithful maps.

    Attributes:
        held: whether it does; None where the images do not tell.
        reason: where it is not shown, why, in a sentence.
        factor: where the images do not tell, how many times as many would; 1 where their number is not what is missing.
    """

    held: bool | None
    reason: str = ""
    factor: float = 1.0


@dataclass(frozen=True)
class Judgement:
    """The verdict on a network's maps.

    Attributes:
        verdict: one of :data:`VERDICTS`.
        reasons: why they are not called faithful, a sentence each; those first that show it.
        needed: how many images, or patients, would give a verdict, where these are too few; else None.
    """

    verdict: Verdict
    reasons: list[str]
    needed: int | None


def judge(
    gap: Figure,
    reach: float,
    advantage: Mapping[str, Figure],
    correlation: Figure | None,
    units: int,
    unit: str,
    judged: str = "decided positive",
) -> Judgement:
    """Whether maps may be called faithful.

    They may where three claims hold: the order of their pixels makes a difference, at least a tenth of what hiding everything
    makes; no trivial map finds what matters better by more than a tenth of that (a tie is no fault: where the evidence lies
    in the middle, a true map and a blob in the middle say the same); and they depend on what the network learnt. They are
    not faithful where one of these is shown to be wrong. What the intervals leave open is not shown.

    Args:
        gap: the own maps' insertion minus deletion, with a t-interval.
        reach: what hiding everything takes from the answer, in probability, mean over the images.
        advantage: trivial map to the figure of the own map's gap minus its gap.
        correlation: with the maps of the random twin; None where too few maps could be compared.
        units: how many images, or patients where they are known, were judged.
        unit: ``image`` or ``patient``.
        judged: which of them, in words; empty where all were.
    """
    claims = [
        _marks(gap, reach),
        *(_ahead(name, found, reach) for name, found in advantage.items()),
        _learnt(correlation),
    ]
    if units < FEWEST:
        reason = f"They are of {_counted(units, unit, judged)}; nothing is said of fewer than {FEWEST}."
        return Judgement(NOT_SHOWN, [reason], _needed(units, claims))
    if all(claim.held for claim in claims):
        return Judgement(FAITHFUL, [], None)
    wrong, unclear = ([claim for claim in claims if claim.held is told] for told in (False, None))
    reasons = [claim.reason for claim in (*wrong, *unclear)]
    return Judgement(NOT_FAITHFUL, reasons, None) if wrong else Judgement(NOT_SHOWN, reasons, _needed(units, unclear))


def verdict_of(found: Mapping[str, Any]) -> Verdict:
    """The verdict in a network's part of ``faithfulness``, or in an exported file: before there were three, it was whether
    maps are faithful."""
    verdict: Verdict | None = found.get("verdict")
    return verdict or (FAITHFUL if found["faithful"] else NOT_FAITHFUL)


def limits(reach: float) -> tuple[float, float]:
    """In probability: what a gap's interval must lie above to be faithful, and below to be not, see :data:`LEAST_SHARE`."""
    return max(LEAST_GAP, LEAST_SHARE * reach), max(WORTHWHILE_GAP, WORTHWHILE_SHARE * reach)


def _marks(gap: Figure, reach: float) -> Claim:
    least, worthwhile = limits(reach)
    low, high = gap["low"], gap["high"]
    if low is None or high is None:
        return Claim(None, "Insertion minus deletion has no interval.")
    if low > least:
        return Claim(True)
    said = (
        f"insertion minus deletion is {_text(gap)}, and this interval must lie above {least:.3f} (hiding everything takes "
        f"{reach:z.3f} from the answer)"
    )
    if high < worthwhile:
        return Claim(False, f"What they show moves the answer by too little: {said}.")
    return Claim(
        None, f"What they show may move the answer by too little: {said}.", _factor(high - low, worthwhile - least)
    )


def _ahead(name: str, figure: Figure, reach: float) -> Claim:
    tie = limits(reach)[0]
    low, high = figure["low"], figure["high"]
    if low is None or high is None:
        return Claim(None, f"Their advantage over the trivial map {name} has no interval.")
    if low > -tie:
        return Claim(True)
    said = f"the difference of the gaps is {_text(figure)}, and its interval must lie above {-tie:.3f}"
    if high < 0:
        return Claim(False, f"The trivial map {name} finds better what moves the answer: {said}.")
    return Claim(
        None, f"The trivial map {name} may find better what moves the answer: {said}.", _factor(high - low, tie)
    )


def _learnt(correlation: Figure | None) -> Claim:
    if correlation is None:
        reason = "Too few of them are not flat, so whether they depend on what the network learnt cannot be told."
        return Claim(None, reason)
    value, low, high = correlation["value"], correlation["low"], correlation["high"]
    if value is None or low is None or high is None:
        return Claim(None, "Their correlation with the maps that it draws with random weights has no interval.")
    if max(abs(low), abs(high)) < SANITY_LIMIT:
        return Claim(True)
    said = (
        f"with random weights it draws maps that correlate with them by {_text(correlation)}, and the limit is "
        f"{SANITY_LIMIT:g}"
    )
    if abs(value) >= SANITY_LIMIT:
        return Claim(False, f"They hardly depend on what the network learnt: {said}.")
    left = SANITY_LIMIT - abs(value)
    return Claim(None, f"They may hardly depend on what the network learnt: {said}.", _factor((high - low) / 2, left))


def _factor(width: float, wanted: float) -> float:
    """How many times as many images make an interval so narrow."""
    return (width / wanted) ** 2


def _needed(units: int, claims: Sequence[Claim]) -> int | None:
    needed = max(FEWEST, ceil(units * max(claim.factor for claim in claims) - _ROUNDING))
    return needed if needed > units else None


def _counted(units: int, unit: str, which: str = "") -> str:
    return f"{counted(units, unit)} {which}".rstrip()


def _text(figure: Figure) -> str:
    if figure["value"] is None:
        return "not defined"
    if figure["low"] is None:
        return f"{figure['value']:z.3f} (no interval)"
    return f"{figure['value']:z.3f} (95 % interval {figure['low']:z.3f} to {figure['high']:z.3f})"


def statement(role: str, found: Mapping[str, Any], judged: str = "decided positive") -> str:
    """What is said of a network's maps, of its part of ``faithfulness``: the verdict, and what would give one.

    ``judged`` is as in :func:`judge`.
    """
    gaps = {name: control["gap"]["value"] for name, control in found["controls"].items()}
    best = max(gaps, key=lambda name: gaps[name])
    figures = (
        f"insertion minus deletion is {found['gap']['value']:z.3f}, against {gaps[best]:z.3f} of the best trivial map"
    )
    if found["verdict"] != NOT_SHOWN:
        return f"The {role}'s maps are {found['verdict']}: {figures} ({best})."
    said = f"Whether the {role}'s maps are faithful is {NOT_SHOWN} ({figures}, {best})."
    if found["needed"] is None:
        return said
    here, needed = _counted(found["units"], found["unit"]), _counted(found["needed"], found["unit"], judged)
    if found["needed"] == FEWEST:
        return f"{said} It takes {needed} or more for any verdict; judged were {here}."
    return f"{said} About {needed} would give a verdict if their figures were like these; judged were {here}."


def notes(
    count: int,
    *,
    of: str,
    flat: Mapping[str, int],
    judged: int,
    checked: int,
    without_road: tuple[int, int] | None,
    undrawn: bool,
    patients: int | None,
    unknown: int,
) -> list[str]:
    """What a reader of the figures must know.

    Args:
        count: number of images.
        of: the role of the network whose decision is explained.
        flat: role to its number of flat maps.
        judged: images that the verdict rests on: those decided positive, or all where none is.
        checked: images that the check against random weights looked at.
        without_road: the images' side and the greatest one for ROAD, where it was left out.
        undrawn: the data have masks, but none of these images has.
        patients: number of patients, those alone included; None where none is known.
        unknown: images of unknown patient.
    """
    found = []
    if len(flat) > 1:
        found = [f"The class explained is the one to which the {of} gives the highest probability, for every network."]
    found += [
        f"The {role}'s map is flat for {empty} of {count} images: nothing in them speaks for the class, or everything alike, "
        "and their pixels come and go in random order."
        for role, empty in flat.items()
        if empty
    ]
    if judged < count:
        found.append(
            f"The verdict rests on the {judged} of {count} images that are decided positive: of an answer that nothing "
            "is there, no map can show the place."
        )
    if checked < judged:
        found.append(f"The check against random weights is of {checked} of the {judged} images judged.")
    if without_road is not None:
        side, greatest = without_road
        found.append(f"ROAD is left out: it takes too long above {greatest} px, and these images have {side}.")
    if undrawn:
        found.append("No explained image has a marked region, so whether maps lie on what was marked is not known.")
    if patients is not None and unknown:
        found.append(
            f"{counted(unknown, 'image')} of unknown patient {'is' if unknown == 1 else 'are'} resampled as a patient each."
        )
    if patients is not None and patients < _FEW_PATIENTS:
        found.append(f"The intervals rest on {counted(patients, 'patient')} only and may be too narrow.")
    return found
