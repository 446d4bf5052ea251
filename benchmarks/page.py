"""The page in a browser: its size, how soon it is ready, and what an answer and a heat map take, for every student.

    python benchmarks/page.py [--side N] [--browser chromium|firefox] [--workers N] [NAMES]

Networks have random weights (a page of trained ones takes as long) and four classes, and see 128 px, those made for 28 px
28. Of each: the model's and the page's megabytes; seconds from the request for the file to an opened model (median of
three); milliseconds of an answer, the image read before (the least of three); and seconds of three heat maps, each drawn
once: by Score-CAM as the page itself draws it, the first right after it was opened, when further workers may still open the
model, and another; and by RISE. As on the page, each image was answered before. Behind each of Score-CAM stands how many of
the layer's channels were asked: all, a sixth, or as many as there was time for. Then, how many workers there were. Seconds
are of the processor, of all the browser's processes, and behind them in brackets by the clock, which a busy machine makes
longer, and which several workers make shorter.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "servers"))
from browsers import opened

from stillroom.deployment.metadata import ModelMetadata
from stillroom.deployment.onnx import export_onnx
from stillroom.deployment.page import write_page
from stillroom.explanation.heat_maps import hidden_value
from stillroom.explanation.layers import find_layer
from stillroom.models.catalogue import STUDENTS
from stillroom.models.efficiency import machine
from stillroom.models.zoo import create
from stillroom.task import MultiClass

DRIVER = (Path(__file__).parents[1] / "tests" / "servers" / "page_driver.js").read_text("utf-8")
CLASSES = MultiClass(("glioma", "meningioma", "none", "pituitary"))


def exported(name: str, side: int, folder: Path) -> Path:
    """The file."""
    torch.manual_seed(0)
    network = create(name, classes=4, size=side).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # some begin at 0, and zeros take no place in a page
                module.weight.uniform_(0.5, 1.5)
    batch = torch.rand(1, 3, side, side)
    layer = find_layer(network, "auto", batch)
    tested = {"method": "score_cam", "faithful": None, "statement": "", "fast": None}
    metadata = ModelMetadata(
        CLASSES, name, side, 3, 255.0, "pad", 1.0, layer=layer.name, explanation=tested,
        hidden=tuple(hidden_value(network, batch).flatten().tolist()),
    )  # fmt: skip
    return export_onnx(network, folder / f"{name}.onnx", metadata, layer=layer)


def picture() -> str:
    """A picture of 1024 x 768, as a PNG in base64."""
    noise = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).save(target, "PNG")
    return base64.b64encode(target.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=STUDENTS)
    parser.add_argument("--side", type=int, help="pixels that every network sees")
    parser.add_argument("--browser", choices=("chromium", "firefox"), default="chromium")
    parser.add_argument("--workers", type=int, help="at most so many; as many as the page makes if not given")
    given = parser.parse_args()
    print(machine(), given.browser)
    heads = (
        "network",
        "px",
        "model, MB",
        "page, MB",
        "ready, s",
        "answer, ms",
        "first map, s",
        "from",
        "next, s",
        "from",
    )
    print(f"| {' | '.join((*heads, 'RISE, s', 'workers'))} |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as place:
        folder, image = Path(place), picture()
        for name in given.names:
            print(row(name, given, folder, image), flush=True)


def processor_s() -> float:
    """Seconds of the processor that all programs below this one have taken so far."""
    tick, parents, taken = os.sysconf("SC_CLK_TCK"), {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(") ")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            taken[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / tick
    below = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(taken[process] for process in below - {os.getpid()})


class Watch:
    """Seconds of the processor, and by the clock, since it was made."""

    def __init__(self) -> None:
        self.processor, self.clock = processor_s(), time.monotonic()

    def read(self) -> tuple[float, float]:
        return processor_s() - self.processor, time.monotonic() - self.clock


def row(name: str, given: argparse.Namespace, folder: Path, image: str) -> str:
    side = given.side or (28 if name.endswith("_28") else 128)
    model = exported(name, side, folder)
    page = write_page(model, folder / "page.html")
    ready, answers = [], []
    with tempfile.TemporaryDirectory(dir=folder) as profile, opened(given.browser, Path(profile)) as window:
        window.before(DRIVER)
        for _ in range(3):
            watch = Watch()
            window.goto(page.as_uri())
            window.evaluate("driver.ready()")
            ready.append(watch.read())
        for _ in range(3):
            number = window.evaluate(f"driver.read('picture.png', '{image}')")["images"][0]["image"]
            answers.append(window.evaluate(TIMED.replace("NUMBER", str(number))))
        cells = [pair(*map(statistics.median, zip(*ready, strict=True))), f"{min(answers):.0f}"]
        for method in (None, None, "rise"):
            number = window.evaluate(f"driver.read('picture.png', '{image}')")["images"][0]["image"]
            window.evaluate(f"driver.ask({{ do: 'predict', image: {number} }})")
            watch = Watch()
            more = json.dumps({"workers": given.workers} if given.workers else {})
            found = window.evaluate(f"driver.explain({number}, null, {json.dumps(method)}, null, {more})")
            cells.append(pair(*watch.read()))
            if method is None:
                estimate = found["estimate"]
                cells.append(f"{estimate['asked']} of {estimate['channels']}" if estimate else "all")
    sizes = " | ".join(f"{file.stat().st_size / 1e6:.1f}" for file in (model, page))
    return " | ".join(map(str, [f"| {name}", side, sizes, *cells, f"{found['workers']} |"]))


def pair(processor: float, clock: float) -> str:
    return f"{processor:.1f} ({clock:.1f})"


TIMED = """(async () => {
    const start = performance.now();
    await driver.ask({ do: 'predict', image: NUMBER });
    return performance.now() - start;
})()"""


if __name__ == "__main__":
    main()
