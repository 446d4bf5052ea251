"""The verb that lists networks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from stillroom.errors import UsageError

_JSON = Parameter(negative="")


def models(
    pattern: str | None = None,
    /,
    *,
    max_mb: float | None = None,
    max_ms: float | None = None,
    size: int | None = None,
    classes: int | None = None,
    threads: int = 1,
    measure: Annotated[bool, _JSON] = False,
    medical: Annotated[bool, _JSON] = False,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """List teachers and students, every network whose name matches a pattern, or the students within a budget.

    A budget is looked for among the listed students and in the OFA space, whose networks have names such as
    `ofa_w100_k33-33-33-33-33_e33-33-33-33-33`. Latencies are measured on this machine, never foretold.

    ```
    stillroom models
    stillroom models 'mobilenetv3*' --json
    stillroom models --max-mb 10 --max-ms 5
    stillroom models --medical '*histology*'
    ```

    Args:
        pattern: a glob over all of timm's names and our own; with `--medical` over names, fields and licences there.
        max_mb: only networks whose float32 parameters take up at most so many MB.
        max_ms: only networks that classify an image in at most so many milliseconds, by the median.
        size: side of the image in pixels. Default: each network's own; 64 with a budget.
        classes: of the classifier. Default: as published; 2 with a budget.
        threads: CPU threads that are timed.
        measure: time every network that is listed.
        medical: the foundation models of medical images that can teach: field, licence, access and source of each.
        json: print JSON alone.
    """
    from stillroom.cli import console

    if medical:
        _medical(pattern, json, measure or any(x is not None for x in (max_mb, max_ms, size, classes)))
        return
    from stillroom.models.cards import describe
    from stillroom.models.catalogue import find, short_list
    from stillroom.models.efficiency import machine
    from stillroom.models.latency import Budget, timed, within
    from stillroom.models.medical import medical as entry_of

    left_out: list[str] = []
    if max_mb is None and max_ms is None:
        names = find(pattern) if pattern else short_list()
        cards = describe(names, size=size, classes=classes)
        cards = timed(cards, classes=classes, threads=threads) if measure else cards
    else:
        size, classes = 64 if size is None else size, 2 if classes is None else classes
        cards, left_out = within(Budget(max_mb, max_ms, size, classes, threads), pattern, measure=measure)
    if json:
        console.print_json([asdict(card) for card in cards])
        return
    console.out().print(console.models_table(cards))
    known = [entry for entry in map(entry_of, (card.name for card in cards)) if entry is not None]
    console.show_medical(known, whole=True)
    if left_out:
        console.say(f"Left out, since they take no images of {cards[0].size} px: {', '.join(left_out)}.")
    if any(card.latency_ms is not None for card in cards):
        console.say(f"Latency: median of single images with --threads {threads} on {machine()['cpu']}.")


def _medical(pattern: str | None, json: bool, measures: bool) -> None:
    from stillroom.cli import console
    from stillroom.models.medical import MEDICAL, search

    if measures:
        raise UsageError(
            "--medical lists what is known without building a network: leave out --max-mb, --max-ms, --size, --classes and "
            "--measure, or ask `stillroom models NAME` about one."
        )
    found = search(pattern) if pattern else list(MEDICAL)
    if json:
        console.print_json([asdict(entry) for entry in found])
    else:
        console.show_medical(found)
