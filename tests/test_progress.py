"""Progress as a terminal and as a log show it."""

import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from stillroom.progress import progress

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
