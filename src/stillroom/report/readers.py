"""What a test with readers found, in words and tables: the same for terminal, report and model card."""

from __future__ import annotations

from typing import Any

from stillroom.report.numbers import METRICS, Estimate, estimate, fixed, p_value
from stillroom.report.section import Section
from stillroom.report.tables import Cell, Grid
from stillroom.shown import counted


def statement_of(found: dict[str, Any]) -> str:
    """The finding on the first figure in one sentence; see :func:`~stillroom.after.reader_answers.judge_answers`."""
    name, compared = next(iter(found["figures"].items()))
    difference, readers = compared["difference"], len(found["readers"])
    words, metric = Estimate(**difference), _metric(name, inside=True)
    if difference["low"] is None:
        return f"No spread can be estimated: no reader's {metric} differed from another's in any image."
    whose = counted(readers, "reader", "readers")
    interval = (
        f"{fixed(difference['value'], signed=True)} ({words.text(signed=True).split(' (')[1]}, {p_value(compared['p'])}"
    )
    if difference["low"] > 0:
        return f"With help {whose} did better: {metric} {interval}."
    if difference["high"] < 0:
        return f"With help {whose} did worse: {metric} {interval}."
    return f"Whether help makes a difference to {whose} is not shown: {metric} {interval}."


def readers_section(found: dict[str, Any]) -> Section:
    """The section of report and model card."""
    text = (
        found["statement"],
        f"{counted(len(found['readers']), 'reader', 'readers')} read {found['images']} test images "
        f"({', '.join(f'{count} {name}' for name, count in found['images_of_each'].items())}) without and with the model's "
        f"answer and heat map, in a {_DESIGNS[found['design']]}. {_basis(found)} 95 % intervals in brackets.",
        *found["notes"],
    )
    about = f" looking for {found['finding']}" if found["finding"] else ""
    return Section(
        f"readers-{found['study']}",
        f"With readers{about}",
        text,
        (
            ("Over all readers" if len(found["readers"]) > 1 else "Of this one reader", overall(found)),
            ("Reader by reader: the figure for this reader alone", by_reader(found)),
            (
                "What help changed, in readings. Followed a wrong model: right alone, and with help wrong as the model was "
                "(relied on it too much). Passed over a right one: wrong alone and with help, though the model was right "
                "(relied on it too little). Both of all readings in which it could happen",
                changes(found),
            ),
        ),
    )


def overall(found: dict[str, Any]) -> Grid:
    """Every figure without and with help, and what the model alone reaches on the same images."""
    rows: list[tuple[Cell, ...]] = [
        (
            _metric(name),
            *(estimate(compared[key]) or "n/a" for key in ("without", "with")),
            _signed(compared["difference"]),
            p_value(compared["p"]) or "n/a",
            fixed(found["model"].get(name)),
        )
        for name, compared in found["figures"].items()
    ]
    seconds = found["seconds"]
    rows.append(
        ("Seconds a reading, median", f"{seconds['without']:.1f}", f"{seconds['with']:.1f}", _times(seconds), "", "")
    )
    agreement, sure = found["agreement"], found["confidence"]
    rows.append(("Confidence, mean of 100", f"{sure['without']:.0f}", f"{sure['with']:.0f}", "", "", ""))
    rows.append(("Agrees with the model", _share(agreement["without"]), _share(agreement["with"]), "", "", ""))
    return Grid(("Figure", "Without help", "With help", "Difference", "p", "The model alone"), rows)


def by_reader(found: dict[str, Any]) -> Grid:
    """The first figure, time and agreement of each reader."""
    name = next(iter(found["figures"]))
    rows: list[tuple[Cell, ...]] = []
    for one in found["each"]:
        compared, seconds, agreement = one["figures"][name], one["seconds"], one["agreement"]
        rows.append(
            (
                one["reader"],
                *(estimate(compared[key]) or "n/a" for key in ("without", "with")),
                _signed(compared["difference"]),
                f"{seconds['without']:.1f} → {seconds['with']:.1f} s",
                f"{_share(agreement['without'])} → {_share(agreement['with'])}",
            )
        )
    return Grid(
        ("Reader", f"{_metric(name)} without", f"{_metric(name)} with", "Difference", "Time", "Agrees with the model"),
        rows,
    )


def changes(found: dict[str, Any]) -> Grid:
    """What readings became with help, reader by reader: mended, spoilt, and how often a wrong model was followed."""
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            str(count["wrong_to_right"]),
            str(count["right_to_wrong"]),
            _of(count["followed_the_wrong_model"], count["model_wrong_reader_right"]),
            _of(count["passed_over_the_right_model"], count["model_right_reader_wrong"]),
        )
        for name, count in (
            *((one["reader"], one["changes"]) for one in found["each"]),
            *((("All", found["changes"]),) if len(found["each"]) > 1 else ()),
        )
    ]
    return Grid(
        (
            "Reader",
            "Wrong to right",
            "Right to wrong",
            "Followed a wrong model",
            "Passed over a right one",
        ),
        rows,
    )


_DESIGNS = {
    "crossover": "crossover of two sittings, each with help for one half of the images",
    "sequential": "sequence: every image first alone, then at once with help",
}


def _basis(found: dict[str, Any]) -> str:
    if len(found["readers"]) == 1:
        return "The interval is over images alone."
    return (
        "Intervals over all readers hold for readers and images like these (Obuchowski and Rockette, with Hillis' degrees of "
        "freedom)."
    )


def _metric(name: str, *, inside: bool = False) -> str:
    """A metric's name, lower case within a sentence."""
    title = METRICS[name]
    return title if title.isupper() or not inside else title.lower()


def _signed(difference: dict[str, float | None]) -> str:
    found = estimate(difference)
    return found.text(signed=True) if found else "n/a"


def _times(seconds: dict[str, Any]) -> str:
    found = estimate(seconds["ratio"])
    if found is None:
        return "n/a"
    ends = "" if found.low is None else f" ({fixed(found.low, 2)} to {fixed(found.high, 2)})"
    return f"{fixed(found.value, 2)} times{ends}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.0%}"


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}"
