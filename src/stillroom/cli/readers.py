"""The verb for a test with readers: it makes the page, and judges what the page saved."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from stillroom.errors import UsageError

if TYPE_CHECKING:
    from stillroom.run.folder import Run

_JSON = Parameter(negative="")


def readers(
    run: Path,
    answers: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    /,
    *,
    images: int | None = None,
    of: str | None = None,
    design: Literal["crossover", "sequential"] | None = None,
    seed: int | None = None,
    side: int | None = None,
    source: str | None = None,
    json: Annotated[bool, _JSON] = False,
) -> None:
    """Test whether the model helps those who read: make a page of test images, then judge the answers that it saved.

    The page opens offline in any browser and sends nothing. It holds no names and no truth; every image is read without and
    with the model's answer, probabilities and heat map. Figures are over readers and images (MRMC), with intervals; the run's
    report and model card gain them.

    ```
    stillroom readers runs/first --images 60
    stillroom readers runs/first answers/*.json
    ```

    Args:
        run: a finished run.
        answers: files that the page saved, one per reader. Without any, the page is made.
        images: how many test images to show, each of another patient, in equal parts of every answer as far as there are
            such. Default: 60.
        of: the class that is looked for: needed where an image may bear several labels. Default: a binary task's positive
            class; else readers choose among all classes.
        design: `crossover` (two sittings, each with help for the half that has none in the other) or `sequential` (every
            image alone, then at once with help). Default: `crossover`.
        seed: draws images, halves and their order. Default: 0.
        side: longest side of the pictures in pixels; larger images are made smaller. Default: 1024.
        source: where the run's images are now, if they were moved.
        json: print JSON alone.
    """
    from stillroom.cli import console
    from stillroom.run.folder import Run

    given = {"images": images, "of": of, "design": design, "seed": seed, "side": side, "source": source}
    wanted = {name: value for name, value in given.items() if value is not None}
    opened = Run.open(run)
    if answers:
        if wanted:
            raise UsageError(f"--{next(iter(wanted))} is for making the page; the page has it already. Leave it out.")
        from stillroom.after.reader_answers import judge_answers

        found = judge_answers(opened, answers)
        console.print_json(found) if json else _show(opened, found)
        return
    from stillroom.after.reader_study import make_page

    made = make_page(opened, **wanted)  # type: ignore[arg-type]
    if json:
        console.print_json({"page": str(made.page), "manifest": str(made.manifest)} | made.content)
        return
    out = console.out()
    out.print(f"Page for the readers: {made.page}", markup=False, soft_wrap=True)
    out.print(
        f"{len(made.content['images'])} test images, each to be read without and with help. Give every reader the page and a "
        "code, R1, R2 and so on: odd and even codes begin with other halves.",
        markup=False,
    )
    out.print(f"Then: stillroom readers {shlex.quote(str(run))} answers/*.json", markup=False, soft_wrap=True)


def _show(run: Run, found: dict[str, Any]) -> None:
    """The report's own words and tables."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from stillroom.cli import console
    from stillroom.report.numbers import Estimate
    from stillroom.report.readers import readers_section

    section, out = readers_section(found), console.out()
    out.print(section.text[0], style="bold", markup=False)
    out.print(section.text[1], markup=False)
    for caption, grid in section.tables:
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for name in grid.columns:
            table.add_column(escape(name))
        for row in grid.rows:
            table.add_row(*(escape(cell.text() if isinstance(cell, Estimate) else cell) for cell in row))
        out.print(f"\n{caption}", markup=False)
        out.print(table)
    for note in section.text[2:]:
        console.say(note)
    out.print(f"\nReport: {run.report}", markup=False, soft_wrap=True)
