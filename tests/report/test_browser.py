"""The page in a real browser: no sideways scrolling on a phone, and something on it."""

import re

import numpy as np
import pytest

from stillroom.evaluation.roles import SIMPLEST
from stillroom.report import write_report
from stillroom.task import MultiClass

pytestmark = pytest.mark.slow
LONG = "consolidation of the left lower lobe with pleural effusion " * 2


@pytest.mark.parametrize("width", [390, 820, 1400])
def test_page_never_scrolls_sideways(make_run, browse, tmp_path, width):
    classes = (LONG, "x" * 90, *(f"class {number}" for number in range(12)))
    report = write_report(
        make_run(
            task=MultiClass(classes),
            roles=("student", "control", "teacher", *SIMPLEST),
            images=420,
            epochs=1,
            featured=16,
            explained=6,
            lesions=True,
            uncertain=True,
            several=3,
            planned=True,
        )
    )
    # A window has a least width; a frame has not.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe src="{report.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe><p id="w"></p>'
        "<script>onload = () => { const d = document.querySelector('iframe').contentDocument.documentElement;"
        "document.getElementById('w').textContent = d.scrollWidth + ' of ' + d.clientWidth; }</script>"
    )
    found = re.search(r"(\d+) of (\d+)</p>", browse(frame, "--dump-dom", "--window-size=1500,1000"))
    assert found, "the frame could not be measured"
    assert int(found[2]) == width
    assert int(found[1]) <= width


@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_page_is_drawn_in_its_scheme(make_run, browse, tmp_path, scheme):
    from PIL import Image

    report = write_report(make_run(featured=16))
    shot = tmp_path / "page.png"
    flags = (f"--screenshot={shot}", "--window-size=1200,3000", f"--blink-settings=preferredColorScheme={scheme}")
    browse(report, *flags)
    pixels = np.asarray(Image.open(shot).convert("L"), dtype=float)
    assert pixels.std() > 10
    assert (np.median(pixels) > 200) == (scheme == 1)
