"""The colours and lines of the page's heat maps, run by node, against the pictures that Python draws."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import stillroom
from stillroom.explanation.overlay import coloured, palette

HEAT = Path(stillroom.__file__).parent / "deployment" / "page" / "face" / "heat.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node, which runs the page's scripts here, is not installed")


@pytest.fixture
def value(tmp_path):
    """``value(expression)``: what an expression gives that uses the exports of heat.js, as ``heat``."""
    module = tmp_path / "heat.mjs"
    module.write_text(HEAT.read_text("utf-8"), "utf-8")

    def run(expression: str):
        code = f"import * as heat from {json.dumps(module.as_uri())}; console.log(JSON.stringify({expression}));"
        done = subprocess.run([NODE, "--input-type=module", "-e", code], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return run


def test_heat_has_the_colours_of_the_pictures(value):
    found = np.array(value(f"heat.palette({json.dumps(palette())})"))
    assert np.abs(found - coloured(np.linspace(0, 1, 256))).max() < 1e-9


def test_opacity_is_the_heat_and_nothing_is_drawn_where_there_is_none(value):
    pixels = value(f"[...heat.heatPixels([0, 0.5, 1, 1.2, -1], heat.palette({json.dumps(palette())}))]")
    pixels = np.array(pixels).reshape(5, 4)
    assert pixels[:, 3].tolist() == [0, 128, 255, 255, 0]
    assert np.abs(pixels[1, :3] - coloured(np.array(128 / 255))).max() <= 1
    assert np.abs(pixels[2, :3] - coloured(np.array(1.0))).max() <= 0.5


def test_the_line_of_a_round_hill_is_a_circle(value):
    """A cone falls by 1 over 20 places: at the level .5 it is 10 places from its top, and the line is closed."""
    side, x, y = 48, 20.3, 25.6
    rows, columns = np.mgrid[0:side, 0:side]
    cone = np.clip(1 - np.hypot(columns + 0.5 - x, rows + 0.5 - y) / 20, 0, 1)
    lines = np.array(value(f"heat.outline({json.dumps(cone.ravel().tolist())}, {side}, 0.5)"))
    ends = lines.reshape(-1, 2)
    assert np.abs(np.hypot(ends[:, 0] - x, ends[:, 1] - y) - 10).max() < 0.05
    assert np.hypot(*(lines[:, 2:] - lines[:, :2]).T).sum() == pytest.approx(2 * np.pi * 10, rel=0.01)
    met = {tuple(end): 0 for end in np.round(ends, 6)}
    for end in np.round(ends, 6):
        met[tuple(end)] += 1
    assert set(met.values()) == {2}


@pytest.mark.parametrize(("diagonal", "apart"), [([[1.0, 0.0], [0.0, 1.0]], False), ([[0.8, 0.0], [0.0, 0.8]], True)])
def test_two_hot_places_that_touch_by_a_corner_are_joined_by_their_mean(value, diagonal, apart):
    lines = value(f"heat.outline({json.dumps(np.ravel(diagonal).tolist())}, 2, 0.5)")
    inside = [line for line in lines if all(0.5 <= place <= 1.5 for place in line)]
    (x0, y0, x1, y1) = inside[0]
    cut_off = (
        (x0 + x1) / 2 - 1 + ((y0 + y1) / 2 - 1)
    )  # of a hot corner the line's middle lies on the diagonal of hot ones
    assert (abs(cut_off) > 0.1) == apart


@pytest.mark.parametrize(
    ("fit", "expected"),
    [("pad", {"x": 0, "y": -10, "width": 60, "height": 60}), ("resize", {"x": 0, "y": 0, "width": 60, "height": 40})],
)
def test_the_networks_square_lies_on_the_image_as_it_was_cut(value, fit, expected):
    assert value(f"heat.squareOn(60, 40, {json.dumps(fit)})") == expected
