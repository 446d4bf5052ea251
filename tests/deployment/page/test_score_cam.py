"""The page's Score-CAM with little time, and base64 as old browsers undo it, run by node. That its maps are the predictor's
is told by test_exactness.py."""

import base64
import json

import numpy as np
import pytest

ASKING = """
import { askedFor, scoreCam } from "./score_cam.js";
import { fromBase64 } from "./common.js";

/** Whom the network is asked about, round by round, where each look at the budget finds the next of `budgets`. */
async function rounds(budgets, given = []) {
  let seed = 1;
  const noise = () => ((seed = (seed * 16807) % 2147483647), seed / 2147483647);
  const channels = { count: 300, height: 4, width: 4, data: Float32Array.from({ length: 300 * 16 }, noise) };
  const known = new Map(given.map((k) => [k, noise()]));
  const left = [...budgets];
  const asked = [];
  const map = await scoreCam(channels, 16, () => (left.length > 1 ? left.shift() : left[0]), known, async ({ count }) => {
    asked.push(count);
    return Array.from({ length: count }, noise);
  }, () => {});
  return { asked, known: known.size, sound: map.length === 16 && map.every((value) => value >= 0) };
}
"""


@pytest.fixture
def value(by_node):
    """``value(expression)``: what an expression gives that uses the engine's Score-CAM."""
    return by_node(ASKING, "score_cam", "maps", "common", "refused")


@pytest.mark.parametrize(
    ("budgets", "in_all"),
    [
        ([50], 50),
        ([50, 50, 50, 40], 40),  # the machine grows busy
        ([50, 50, 20], 32),  # so busy that nothing more is asked: never fewer than the page promises
        ([40, 40, 45, 50], 50),  # a further worker has come
        ([300], 300),
    ],
)
def test_time_that_runs_out_or_is_found_changes_how_many_are_asked(value, budgets, in_all):
    """As the worker does, no budget is below 32."""
    said = value(f"rounds({json.dumps(budgets)}.map((most) => most === 300 ? 300 : askedFor(300, true, most)))")
    assert (sum(said["asked"]), said["known"], said["sound"]) == (in_all, in_all, True)


def test_a_budget_below_what_was_asked_ends_the_asking(value):
    said = value("rounds([50, 50, 4])")
    assert (said["asked"], said["sound"]) == ([15, 0, 0, 0, 0, 0, 0], True)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 1000])
def test_base64_is_undone_where_the_browser_does_not_know_how(value, length):
    content = np.random.default_rng(length).bytes(length)
    text = base64.b64encode(content).decode()
    unknown = "delete Uint8Array.fromBase64"
    known = "Uint8Array.fromBase64 = (text) => new Uint8Array(Buffer.from(text, 'base64'))"
    for browser in (unknown, known):
        assert bytes(value(f"({browser}, [...fromBase64('{text}')])")) == content
