"""Photograph the page of a model, the server's pages and reports in Chromium, as contact sheets to look at.

    python docs/make_screens.py page RUN           # of stillroom demo: docs/page/*.webp, and the PNGs of docs/how-to.md
    python docs/make_screens.py report RUN ...     # finished runs: docs/look/NAME-first.webp and NAME-whole.webp

A sheet shows one state at 390, 768 and 1440 px, in light and in dark. Needs Chromium and, for the page, its runtime.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from stillroom import Predictor
from stillroom.data.sources.phantoms import read_phantoms
from stillroom.deployment.page import write_page
from stillroom.report import write_report
from stillroom.serving import pages as server_pages
from stillroom.settings.sections import DataSettings

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests" / "servers"))
from browsers import opened  # noqa: E402
from page_window import Window  # noqa: E402

WIDTHS = ((390, 844), (768, 1024), (1440, 900))
FILMS = 160
GAP = 12
STATES = ("empty", "busy", "drawing", "answer", "set", "refusal", "error", "many", "card")
ALONE = {
    "empty": ("empty-light", 2, 960),
    "answer": ("answer-desktop-light", 2, 1080),
    "refusal": ("refusal-phone-dark", 3, 390),
    "many": ("many-tablet", 1, 768),
}
"""By state: a picture that stands alone, its place in the sheet and its width."""
HOLDING = """
    window.Worker = class extends Worker {
        set onmessage(hear) {
            super.onmessage = (event) => window.held && (event.data.done || event.data.progress > 0.5) ? null : hear(event);
        }
    };
"""
"""Of a page where `held` is set, a map stays half drawn: those of a small network are done before a picture is taken."""


@contextmanager
def window() -> Iterator[Window]:
    """A window of Chromium."""
    with tempfile.TemporaryDirectory() as place, opened("chromium", Path(place)) as browser:
        browser.before(HOLDING)
        yield Window(browser, Path(place))


def shot(of: Window, width: int, height: int | None) -> Image.Image:
    """What a window shows; without a height all of the page."""
    whole = of.value("document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height or whole, "scale": 1}
    taken = of.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=height is None)
    return Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")


def sheet(target: Path, bring: Callable[[Window], object], *, scale: float, whole: bool = False) -> list[Image.Image]:
    """One state at every width in both schemes, side by side; ``bring`` opens it in a window that has its shape.

    Returns:
        The pictures, light ones first, narrow ones first.
    """
    drawn = []
    with window() as one:
        for dark in (False, True):
            for width, height in WIDTHS:
                one.shape(width, dark=dark, height=height)
                bring(one)
                drawn.append(shot(one, width, None if whole else height))
    small = [
        one.resize((round(one.width * scale), round(one.height * scale)), Image.Resampling.LANCZOS) for one in drawn
    ]
    if whole:
        rows = [small]
    else:
        rows = [small[:3], small[3:]]
    size = (
        max(sum(one.width + GAP for one in row) for row in rows),
        sum(max(one.height for one in row) + GAP for row in rows),
    )
    board, top = Image.new("RGB", size, (128, 128, 128)), 0
    for row in rows:
        left = 0
        for one in row:
            board.paste(one, (left, top))
            left += one.width + GAP
        top += max(one.height for one in row) + GAP
    target.parent.mkdir(parents=True, exist_ok=True)
    board.save(target, quality=70, method=6)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")
    return drawn


def drawings() -> Iterator[np.ndarray]:
    """Pictures of nothing that a model was trained on, of which it may refuse one."""
    down, across = np.mgrid[:480, :640]
    rings = np.hypot(down - 200, across - 300)
    yield np.stack([120 + 100 * np.sin(rings / 9), 90 + across / 5, 200 - down / 4], axis=-1).astype(np.uint8)
    yield np.uint8((down // 40 + across // 40) % 2 * 255)
    yield np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)


# -- the page -------------------------------------------------------------------------------------------------------
def films(run: Path, place: Path) -> dict[str, list[Path]]:
    """Files by state: phantoms that the model is sure and unsure of, a picture of another kind, and a file that is none."""
    table, predictor = read_phantoms(f"phantoms:{FILMS}", DataSettings(), seed=77), Predictor.load(run)
    drawn = [table.reader.read(number) for number in range(FILMS)]
    files = []
    for number, film in enumerate(drawn, start=1):
        files.append(place / f"film-{number:03}.png")
        Image.fromarray(film).save(files[-1])
    said = predictor.predict(drawn)
    kept = [number for number in range(FILMS) if not said[number].foreign]
    sure = max(kept, key=lambda number: max(said[number].probabilities.values()))
    unsure = next(number for number in kept if len(said[number].possible) == 2)
    others = list(drawings())
    refused = next(drawn for drawn, one in zip(others, predictor.predict(others), strict=True) if one.foreign)
    foreign = place / "of-another-kind.png"
    Image.fromarray(refused).save(foreign)
    cut = place / "film-cut-off.png"
    cut.write_bytes(files[0].read_bytes()[:200])
    several = [*files[:6], foreign, cut]
    return {
        "empty": [], "busy": files, "drawing": [files[sure]], "answer": [files[sure]], "set": [files[unsure]],
        "refusal": [foreign], "error": [cut], "many": several, "card": [],
    }  # fmt: skip


def bring_page(one: Window, page: Path, state: str, files: list[Path]) -> None:
    """The page in a state."""
    one.open(page)
    one.value(f"window.held = {str(state == 'drawing').lower()}")
    if files:
        one.give(*files)
    if state == "busy":
        one.until("!document.getElementById('working').hidden && document.querySelector('#many tbody tr')")
    elif state == "drawing":
        one.until("document.getElementById('cancel')")
        time.sleep(0.4)
    elif state == "error":
        one.until("document.getElementById('working').hidden && document.body.innerText.includes('film-cut-off')")
    elif state == "card":
        one.value("document.getElementById('show-card').click()")
        one.until("document.getElementById('card').open")
    elif files:
        one.settled()
    time.sleep(0.3)


def page_sheets(run: Path, states: list[str] | None) -> None:
    target = DOCS / "page"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        page, shown = write_page(run, place / "page.html", language="en"), films(run, place)
        for state in states or STATES:
            drawn = sheet(
                target / f"{state}.webp",
                lambda one, state=state: bring_page(one, page, state, shown[state]),  # type: ignore[misc]
                scale=0.5,
            )
            if state in ALONE:
                name, number, width = ALONE[state]
                alone = drawn[number]
                alone = alone.resize((width, alone.height * width // alone.width), Image.Resampling.LANCZOS)
                alone.quantize(256, dither=Image.Dither.NONE).save(target / f"{name}.png", optimize=True)
        one, other = (
            SimpleNamespace(name=name, predictor=SimpleNamespace(classes=classes, synthetic=synthetic))
            for name, classes, synthetic in (
                ("ears", ("Chronic otitis media", "Earwax plug", "Normal"), False),
                ("films", ("normal", "nodule", "effusion"), True),
            )
        )
        lacking = server_pages.without_page("ears", "The page needs files that are not here.")
        for name, text in (("server-list", server_pages.list_of([one, other])), ("server-no-page", lacking)):
            (place / f"{name}.html").write_text(text, "utf-8")
            address = (place / f"{name}.html").as_uri()
            sheet(target / f"{name}.webp", lambda of, address=address: of.browser.goto(address), scale=0.4)  # type: ignore[misc]


# -- reports --------------------------------------------------------------------------------------------------------
def report_sheets(runs: list[Path]) -> None:
    for run in runs:
        address = write_report(run).as_uri()
        for part, whole in (("first", False), ("whole", True)):
            sheet(
                DOCS / "look" / f"{run.name}-{part}.webp",
                lambda one, address=address: one.browser.goto(address),  # type: ignore[misc]
                scale=0.3 if whole else 0.5,
                whole=whole,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["page", "report"])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--states", nargs="*", choices=STATES, help="of the page, where not all")
    given = parser.parse_args()
    if given.what == "page":
        page_sheets(given.runs[0], given.states)
    else:
        report_sheets(given.runs)


if __name__ == "__main__":
    main()
