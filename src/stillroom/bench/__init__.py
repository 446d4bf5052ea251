"""A grid of recipes, data sets, teachers, students and seeds: run, compared with its baselines, and put into tables.

    from stillroom import run_bench

    results = run_bench("grid.yaml", "runs/grid")
    results.systems[1].difference

Light to import: torch is loaded when cells are checked.
"""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.bench.grid import Cell, read_grid
from stillroom.errors import StillroomError, UsageError
from stillroom.files.atomic import sweep, write_atomically
from stillroom.files.places import require_folder_place
from stillroom.settings.whole import to_dict

if TYPE_CHECKING:
    from stillroom.bench.collect import Finished, Outcome, System
    from stillroom.bench.engines import Engine, Job

REPORT = "report.html"
"""A run folder that holds it is finished."""


@dataclass(frozen=True)
class Results:
    """What a grid found.

    Attributes:
        out: the output folder, with ``table.csv``, ``table.md``, ``index.html`` and ``cells/``.
        outcomes: every cell in the order of the file.
        systems: means over seeds, with differences to the controls.
        over_sets: ranks and tests over data sets, or None.
    """

    out: Path
    outcomes: list[Outcome]
    systems: list[System]
    over_sets: dict[str, Any] | None

    @property
    def failed(self) -> list[Outcome]:
        """The cells that failed."""
        return [outcome for outcome in self.outcomes if outcome.state == "failed"]


def run_bench(
    file: Path | str,
    out: Path | str,
    *,
    workers: int | None = None,
    engine: Engine = "processes",
    show_progress: bool = True,
) -> Results:
    """Run every cell of a grid file and compare the recipes.

    Each cell is an ordinary run folder ``OUT/cells/<id>`` with its log beside it, made in a process of its own. What
    stands there already is kept: a finished cell is not run again, one that was stopped goes on. A cell that fails does
    not stop the others; it is named in the results, and tried again the next time. The tables are written after every
    cell.

    Args:
        file: the grid; see :func:`~stillroom.bench.grid.read_grid` and docs/how-to.md.
        out: the output folder.
        workers: cells at a time. Default: half the cores. Each gets an equal share of the cores as threads.
        engine: ``processes``, or ``ray`` (``pip install 'stillroom[sweep]'``).
        show_progress: say on standard error how far it has come.

    Raises:
        UsageError: the file, a cell's settings or the folder cannot be used; no cell was started.
        StorageError: a table could not be written.
    """
    from stillroom.bench.engines import make_place, reason_of, run_jobs
    from stillroom.progress import progress

    file, out = Path(file), Path(out).absolute()
    cells = read_grid(file)
    _check_folder(out)
    sweep(chain(out.glob(".*.tmp"), (out / "cells").glob(".*.tmp")))
    state = _State(file, out, cells)
    damaged = state.look(show_progress)
    todo = [cell for cell in _in_running_order(cells) if cell.id not in state.finished]
    _check_cells(file, todo)
    place = make_place(engine, workers)
    _write(out / "grid.yaml", file.read_text(encoding="utf-8"))  # first: by it the folder is known again
    jobs = {cell.id: _job(cell, out) for cell in todo}
    say = _printer(show_progress)
    say(_opening(cells, todo, out, place.slots, place.threads))
    for reason in damaged:
        say(reason)
    results = state.write()

    by_folder = {jobs[cell.id].folder: cell for cell in todo}
    try:
        with (
            progress("cells", len(cells), done=len(cells) - len(todo), enabled=show_progress) as advance,
            closing(run_jobs(list(jobs.values()), place)) as ended,  # type: ignore[type-var]
        ):
            for job, code in ended:
                cell = by_folder[job.folder]
                whole = (job.folder / REPORT).exists()  # it is written last
                state.end(cell, None if whole else reason_of(code, job.log))
                results = state.write()
                advance(1)
                say(state.line(cell))
    except KeyboardInterrupt as stop:
        stop.add_note(f"{len(state.finished)} of {len(cells)} cells are done; the same command goes on.")
        raise
    return results


class _State:
    """How far the cells have come, and the files that say so."""

    def __init__(self, file: Path, out: Path, cells: list[Cell]) -> None:
        self.file, self.out, self.cells = file, out, cells
        self.finished: dict[str, Finished] = {}
        self.failed: dict[str, str] = {}

    def look(self, show_progress: bool) -> list[str]:
        """Read what finished cells left. What cannot be read is put aside, to be run again; returns a line for each."""
        from stillroom.bench.collect import read_cell
        from stillroom.progress import progress

        there = {cell.id: self.out / "cells" / cell.id for cell in self.cells}
        there = {name: folder for name, folder in there.items() if (folder / REPORT).exists()}
        with progress("reading", len(there), enabled=show_progress) as advance:
            damaged = []
            for name, folder in there.items():
                try:
                    self.finished[name] = read_cell(folder)
                except (StillroomError, OSError, KeyError, TypeError, ValueError) as error:
                    aside = _put_aside(folder, self.out / "damaged")
                    damaged.append(
                        f"{name} is damaged ({one_line(error)}): it is run again, the old one is now {aside}."
                    )
                advance(1)
        return damaged

    def end(self, cell: Cell, reason: str | None) -> None:
        """Take in a cell that has ended; ``reason`` says why it failed."""
        from stillroom.bench.collect import read_cell

        if reason is None:
            self.finished[cell.id] = read_cell(self.out / "cells" / cell.id)
        else:
            self.failed[cell.id] = reason

    def write(self) -> Results:
        """Write the tables and the page as far as things stand."""
        from stillroom.bench import collect, tables
        from stillroom.bench.page import page

        outcomes = [self._outcome(cell) for cell in self.cells]
        found = collect.systems(outcomes)
        over = collect.over_sets(found)
        _write(self.out / "table.csv", tables.csv_table(outcomes))
        _write(self.out / "table.md", tables.markdown(outcomes, found, over))
        _write(self.out / "index.html", page(self.file, outcomes, found, over))
        return Results(self.out, outcomes, found, over)

    def line(self, cell: Cell) -> str:
        """A line for people about a cell that has ended."""
        place = f"[{len(self.finished) + len(self.failed)}/{len(self.cells)}] {cell.title}"
        if cell.id in self.failed:
            return f"{place}: failed: {self.failed[cell.id]}"
        from stillroom.report.numbers import METRICS, duration, estimate

        finished = self.finished[cell.id]
        figure = estimate(finished.figures[finished.metric])
        shown = f"{METRICS[finished.metric]} {figure.text() if figure else 'n/a'}"
        return f"{place}: {shown}, {duration(finished.cost['seconds'])}"

    def _outcome(self, cell: Cell) -> Outcome:
        from stillroom.bench.collect import Outcome

        if cell.id in self.finished:
            return Outcome(cell, "done", finished=self.finished[cell.id])
        return Outcome(cell, "failed" if cell.id in self.failed else "waiting", self.failed.get(cell.id, ""))


def _put_aside(folder: Path, shelf: Path) -> Path:
    shelf.mkdir(exist_ok=True)
    aside = next(place for n in count(1) if not (place := shelf / f"{folder.name}-{n}").exists())
    return folder.rename(aside)


def one_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _check_folder(out: Path) -> None:
    require_folder_place(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "grid.yaml").exists())):
        raise UsageError(f"{out} exists already and holds no bench: choose another --out.")


def _check_cells(file: Path, cells: list[Cell]) -> None:
    """Raises UsageError, naming the cell, for what `stillroom distill` would refuse before it reads an image."""
    from stillroom.data.load import open_source
    from stillroom.data.table import Table
    from stillroom.run.preparing import check_settings as check

    tables: dict[str, Table] = {}
    for cell in cells:
        settings = cell.settings
        key = repr((settings.source, settings.data))
        try:
            if key not in tables:
                tables[key] = open_source(settings.source, settings.data, seed=settings.seed)
            if cell.plan is None:
                check(settings, tables[key])
            else:  # the rest is not known before it is planned
                settings.recipe.adapt(tables[key].task)
        except StillroomError as error:
            raise UsageError(f"{file}: {cell.title}: {error}") from None


def _in_running_order(cells: list[Cell]) -> list[Cell]:
    """Seed by seed with the baseline first, so that comparisons come early and cells that share a bank are neighbours."""
    data = list(dict.fromkeys(cell.data for cell in cells))
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    return sorted(cells, key=lambda c: (data.index(c.data), seeds.index(c.seed), not c.is_baseline, c.teacher))


def _job(cell: Cell, out: Path) -> Job:
    import yaml

    from stillroom.bench.engines import Job, made_by

    folder = out / "cells" / cell.id
    settings = folder.with_name(f"{cell.id}.yaml")
    content = to_dict(cell.settings)
    if cell.plan:  # only what is given, around which `stillroom distill` then plans
        head = {name: content[name] for name in ("source", "seed", "device")}
        content = head | cell.given
    _write(settings, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    log = folder.with_name(f"{cell.id}.log")
    cuda = cell.settings.device in ("auto", "cuda")
    return Job(settings, folder, log, made_by(cell.settings), cuda=cuda, flags=_flags(cell))


def _flags(cell: Cell) -> tuple[str, ...]:
    """What asks `stillroom distill` for the cell's plan."""
    limits = {} if cell.plan is None else asdict(cell.plan)
    given = {name: value for name, value in limits.items() if value is not None}
    return tuple(part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", f"{value:g}"))


def _opening(cells: list[Cell], todo: list[Cell], out: Path, workers: int, threads: int) -> str:
    started = sum((out / "cells" / cell.id / "manifest.json").exists() for cell in todo)
    ids = {cell.id for cell in cells}
    others = sum(path.is_dir() and path.name not in ids for path in (out / "cells").glob("[!.]*"))
    text = f"{len(cells)} cells: {len(cells) - len(todo)} done before and kept, {len(todo)} to go"
    text += f", {started} of them begun" if started else ""
    text += f"; {workers} at a time with {threads} thread{'s' if threads > 1 else ''} each."
    if others:
        text += f" {others} of an earlier file stay in {shlex.quote(str(out / 'cells'))}, outside the tables."
    return text


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda target: target.write_text(text, encoding="utf-8"))


def _printer(enabled: bool) -> Any:
    return (lambda text: print(text, file=sys.stderr, flush=True)) if enabled else (lambda text: None)


__all__ = ["Cell", "Results", "read_grid", "run_bench"]
