"""How the page's workers share what is asked for a heat map, run by node with workers that are made up."""

import json

import pytest

WORKERS = """
import { crewFor, hand, shared } from "./crew.js";
const asked = []; // by whom, and which questions
const dropped = [];
const left = [];
const later = (ms) => new Promise((go) => setTimeout(go, ms));
const answer = (batch) => Float32Array.from([...batch].flatMap((q) => [q * q, -q]));

/** Stands for the port of a worker: `kind` is what it does. */
function portTo(name, kind) {
  let until = 0;
  const port = {
    close() {},
    async postMessage(message) {
      if (message.do === "leave") return left.push(name);
      if (message.do === "help") {
        await later(5);
        const reply = kind === "unable" ? { failed: "memory" } : { ready: true };
        if (kind !== "never") port.onmessage({ data: { id: 0, ...reply } });
        return;
      }
      if (message.do === "drop") return dropped.push([name, (until = message.until)]);
      asked.push([name, [...message.batch]]);
      await later(kind === "slow" ? 40 : 2);
      if (kind === "dies") return port.lose();
      const reply = message.id <= until ? { dropped: true } : { logits: answer(message.batch) };
      port.onmessage({ data: { id: message.id, ...reply } });
    },
  };
  return port;
}

function handTo(name, kind) {
  const port = portTo(name, kind);
  const one = hand({}, port);
  port.lose = one.lose; // as the page tells of a worker that ended
  if (kind === "impossible") one.lose();
  return one;
}

async function run(count, kinds, { stopAt = Infinity } = {}) {
  const crew = kinds.map((kind, n) => handTo(n, kind));
  await later(20);
  const known = [];
  const found = await shared(count, {
    crew,
    batch: (from, n) => Float32Array.from({ length: n }, (_, i) => from + i),
    own: async (batch) => (asked.push(["here", [...batch]]), await later(2), answer(batch)),
    most: () => 6,
    between: (first, done) => {
      known.push([first.length, done, first.every((one, i) => one[0] === i * i && one[1] === -i)]);
      if (done >= stopAt) throw new Error("enough");
    },
  }).then((answers) => answers.map((one) => [...one]), (error) => error.message);
  return { found, known, asked, dropped, left, gone: crew.map((one) => one.gone) };
}
"""


@pytest.fixture
def value(by_node):
    """``value(expression)``: what an expression gives that uses crew.js and the workers above."""
    return by_node(WORKERS, "crew")


@pytest.mark.parametrize(
    "kinds", [[], ["quick"], ["slow", "quick", "quick"], ["impossible", "quick"], ["unable"], ["never"]]
)
def test_answers_come_in_the_order_of_the_questions_whoever_gives_them(value, kinds):
    said = value(f"run(41, {json.dumps(kinds)})")
    assert said["found"] == [[n * n, -n] for n in range(41)]
    assert sorted(question for _, batch in said["asked"] for question in batch) == list(range(41))
    able = {n for n, kind in enumerate(kinds) if kind in ("quick", "slow")}
    assert {name for name, _ in said["asked"]} == {"here", *able}
    assert said["gone"] == [kind in ("impossible", "unable") for kind in kinds]
    assert sorted(said["left"]) == [n for n, gone in enumerate(said["gone"]) if gone]
    assert all(known <= done and right for known, done, right in said["known"])


def test_what_a_lost_worker_had_is_answered_by_the_others(value):
    said = value('run(30, ["dies", "quick"])')
    assert said["found"] == [[n * n, -n] for n in range(30)]
    assert said["gone"] == [True, False]
    questions = [question for _, batch in said["asked"] for question in batch]
    assert set(questions) == set(range(30))
    assert len(questions) > 30


def test_when_it_is_stopped_nobody_goes_on(value):
    said = value('run(400, ["quick", "slow"], { stopAt: 20 })')
    assert said["found"] == "enough"
    assert {name for name, _ in said["dropped"]} <= {0, 1}
    assert 1 in {name for name, _ in said["dropped"]}  # the slow one had a piece in hand
    assert sum(len(batch) for _, batch in said["asked"]) < 80


@pytest.mark.parametrize(
    ("megabytes", "cores", "more"), [(9, 1, 0), (9, 2, 1), (9, 64, 3), (94, 8, 2), (150, 8, 1), (350, 8, 0)]
)
def test_how_many_there_are_is_bounded_by_cores_and_memory(value, megabytes, cores, more):
    assert value(f"crewFor({megabytes}e6, {cores})") == more
