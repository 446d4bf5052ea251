"""Progress as a terminal and as a log show it."""

import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from stillroom import Baseline, EvaluationSettings, Settings
from stillroom.progress import Journey, enter, journey, progress, size_in_words
from stillroom.run.forecast import foreseen, stage_of

WORK = """
import time
from stillroom.progress import progress

with progress("teacher, views", 8, done=2) as advance:
    for step in range(6):
        advance(1, f"epoch {step + 3}/8, validation quadratic kappa 0.123")
        time.sleep(0.15)
print("figures")
"""


def on_a_terminal(code, columns):
    """What a program writes to a terminal of that width."""
    first, second = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=second, stderr=second, env=environment) as process:
        os.close(second)
        shown = b""
        while select.select([first], [], [], 60)[0]:
            try:
                part = os.read(first, 1 << 16)
            except OSError:  # Linux says so when the program has ended
                break
            if not part:
                break
            shown += part
    os.close(first)
    assert process.returncode == 0
    return shown.decode()


@pytest.mark.parametrize("columns", [80, 120])
def test_a_bar_fits_the_terminal_and_vanishes(columns):
    shown = on_a_terminal(WORK, columns)
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in re.split(r"[\r\n]+", shown)]
    full = [line for line in lines if "100%" in line]
    assert full
    for line in full:
        assert line.startswith("teacher, views ")
        assert "━" in line
        assert re.search(r"\d:\d\d:\d\d left epoch 8/8, validation quadratic kappa 0\.123", line)
    assert max(map(len, lines)) <= columns
    # The bar's last line is erased before the next output takes its place.
    assert shown.endswith("\x1b[1A\x1b[2Kfigures\r\n")


def test_a_log_gets_a_line_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress("student", 100, done=50) as advance:
        for _ in range(50):
            now[0] += 4
            advance(1, "epoch 1/2, validation auc 0.900")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "student: 54 %, about 3 min left; epoch 1/2, validation auc 0.900"
    assert len(lines) == 12  # every 16 s of 200, since a line comes after 15 at the earliest; none at the end
    assert lines[-1].startswith("student: 98 %, about 8 s left")


def test_quick_work_and_silence_write_nothing(capsys):
    for enabled in (True, False):
        with progress("decoding", 3, enabled=enabled) as advance:
            for _ in range(3):
                advance()
    with progress("nothing", 0) as advance:
        advance()
    assert capsys.readouterr() == ("", "")


# -- the way through all stages -------------------------------------------------------------------------------------
@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_for_all_follows_what_stages_really_took(clock):
    way = Journey({"teach": 60.0, "student": 600.0, "control": 500.0, "evaluate": 100.0})
    way.enter("teach")
    assert way.where() == "stage 1 of 4, about 21 min left for all"  # 1260 s
    clock[0] += 30
    assert way.left(None) == 1230
    assert way.left(10.0) == 1210  # its own bar knows better
    clock[0] += 90  # twice as long as expected: so will the rest be
    assert way.enter("student")
    assert way.left(None) == 2 * 1200
    assert not way.enter("student")
    assert not way.enter("something else")
    way.enter("evaluate")  # whatever the order
    assert way.where().startswith("stage 3 of 4")


def test_a_stage_that_nobody_timed_has_no_time_left(clock):
    way = Journey({"student": 10.0, "evaluate": None})
    way.enter("student")
    assert way.where(5.0) == "stage 1 of 2"
    assert Journey({"student": 1.0, "evaluate": 1.0}, done=["student"]).entered == ["student"]


def test_lines_of_a_log_tell_of_the_stage(capsys, clock):
    with journey({"teach": 20.0, "student": 60.0, "evaluate": 30.0}):
        enter("student")
        with progress("student", 100) as advance:
            for _ in range(50):
                clock[0] += 1
                advance(1, "epoch 1/2")
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "student: 15 %, about 85 s left; stage 1 of 3, about 2 min left for all; epoch 1/2"


def test_a_terminal_shows_the_stage_below_the_bar_and_a_line_for_each():
    code = "from stillroom.progress import enter, journey\n"
    code += "with journey({'teach': 5.0, 'student': 9.0}):\n    enter('teach')"
    code += "".join(f"\n    {line}" for line in WORK.splitlines())
    shown = on_a_terminal(code, 80)
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in re.split(r"[\r\n]+", shown)]
    assert lines[0] == "Stage 1 of 2, about 14 s left for all: teach"
    assert any(re.fullmatch(r"stage 1 of 2, about \d+ s left for all *", line) for line in lines[1:])
    assert max(map(len, lines)) <= 80


def test_silence_is_silent(capsys, clock):
    with journey({"student": 1.0}, enabled=False):
        enter("student")
    assert capsys.readouterr() == ("", "")


AFTER = ("evaluate", "fairness")


def test_stages_are_foreseen_from_the_settings():
    assert list(foreseen(Settings("x"), AFTER)) == ["teach", "student", "control", *AFTER]
    assert list(foreseen(Settings("x", Baseline()), AFTER)) == ["student", *AFTER]
    assert set(foreseen(Settings("x"), AFTER).values()) == {None}
    planned = foreseen(Settings("x", Baseline()), AFTER, {"student": 3.0, "evaluate": 2.0})
    assert planned == {"student": 3.0, "evaluate": 2.0, "fairness": 0.0}


def test_a_piece_of_work_is_known_by_its_name():
    names = {"ask teacher": "teach", "train teacher-2": "teach", "fit teacher's head": "teach", "train skd": "student"}
    names |= {"train student": "student", "train control": "control", "repeats": "repeats", "fairness": "fairness"}
    assert {name: stage_of(name) for name in names} == names


def test_work_that_the_journey_does_not_have_is_passed_over():
    way = Journey({"student": 1.0})
    assert not way.enter("probe of teacher")
    assert way.current == ""


def test_repeats_are_a_stage_of_their_own():
    thrice = Settings("x", evaluation=EvaluationSettings(repeats=3))
    found = foreseen(thrice, AFTER, {"teach": 1.0, "student": 30.0, "control": 60.0})
    assert (found["student"], found["control"], found["repeats"]) == (10.0, 20.0, 60.0)
    way = Journey({"student": 10.0, "repeats": 60.0})
    assert way.enter("student")
    assert way.enter("repeats")
    assert not way.enter("student")
    assert way.current == "repeats"


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (524e6, "524 MB"), (61.8e9, "61.8 GB")]
)
def test_sizes_are_said_in_the_unit_that_fits(count, said):
    assert size_in_words(count) == said
