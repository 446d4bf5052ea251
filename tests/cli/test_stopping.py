"""Signals: one line, the right exit code, and nothing ugly, whenever they come and however often."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

if sys.platform == "win32":
    pytest.skip("signals are sent otherwise there", allow_module_level=True)

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
HEAD = """
import atexit, os, signal, sys, time, types
from stillroom.cli import stopping
app = types.ModuleType("stillroom.cli.app")
sys.modules["stillroom.cli.app"] = app
def ready():
    print("ready", flush=True)
"""
TAIL = """
app.main = main
from stillroom.__main__ import main
main()
"""


def heeding(ignored=()):
    """As a shell starts a program, but for what it is to ignore."""
    for number in CODES:
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    if signal.SIGINT not in ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def started():
    """``started(body, ignored)``: a process of the command line whose ``main`` is this, once it has said that it is ready."""
    processes = []

    def start(body, ignored=(), head=HEAD, tail=TAIL):
        process = subprocess.Popen(
            [sys.executable, "-c", head + body + tail],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: heeding(ignored),
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


WORKING = """
def main():
    try:
        ready()
        time.sleep(60)
    finally:
        print("tidied up", flush=True)
        time.sleep({tidying})
"""


@pytest.mark.parametrize("number", CODES)
def test_each_is_one_line_and_its_own_exit_code(started, number):
    process = started(WORKING.format(tidying=0))
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("tidied up\n", "error: Stopped.\n")
    assert process.returncode == CODES[number]


def test_more_of_them_while_it_tidies_up_change_nothing(started):
    process = started(WORKING.format(tidying=0.5))
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "tidied up\n"
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
        time.sleep(0.05)
    assert process.communicate(timeout=20) == ("", "error: Stopped.\n")
    assert process.returncode == 143


def test_one_that_comes_much_later_ends_it_at_once(started):
    process = started("stopping.GRACE_S = 0.1\n" + WORKING.format(tidying=60))
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "tidied up\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "error: Stopped at once.\n")
    assert process.returncode == 130


def test_nohup_and_background_jobs_are_left_alone(started):
    process = started(WORKING.format(tidying=0), ignored=(signal.SIGHUP, signal.SIGINT))
    for number in (signal.SIGHUP, signal.SIGINT):
        process.send_signal(number)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[1] == "error: Stopped.\n"
    assert process.returncode == 143


def test_while_the_command_line_is_imported(started):
    """Which begins with what heeds signals."""
    head = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "stillroom.cli.app":
            print("ready", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
"""
    process = started("", head=head, tail="from stillroom.__main__ import main\nmain()\n")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "error: Stopped.\n")
    assert process.returncode == 130


def test_one_that_falls_into_a_destructor_is_not_lost(started):
    """Python prints an exception there and goes on."""
    body = """
class Closing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
def main():
    ready()
    Closing()
    for _ in range(600):
        time.sleep(0.1)
"""
    process = started(body)
    assert process.communicate(timeout=20) == ("", "error: Stopped.\n")
    assert process.returncode == 143


def test_once_all_is_said_the_process_just_ends(started):
    body = """
atexit.register(lambda: (ready(), time.sleep(60)))
def main():
    pass
"""
    process = started(body)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize("late", CODES)
def test_one_that_comes_as_a_stopped_process_ends_leaves_its_exit_code(started, late):
    body = """
def at_exit():
    print("ending", flush=True)
    time.sleep(60)
def main():
    atexit.register(at_exit)
    try:
        ready()
        time.sleep(60)
    except stopping.Stop as stop:
        sys.exit(stopping.exit_code(stop))
"""
    process = started(body)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "ending\n"
    process.send_signal(late)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 143


def test_one_that_comes_after_everything_leaves_the_exit_code_of_a_stopped_process(started):
    """Python puts the signals' own ends back before it takes its modules apart."""
    body = """
class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGTERM):
        kill(process, number)
last = Last()
def main():
    ready()
    time.sleep(60)
"""
    process = started(body)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "error: Stopped.\n")
    assert process.returncode == 130


def test_a_stop_that_somebody_caught_is_no_exit_code(started):
    body = """
def main():
    try:
        ready()
        time.sleep(60)
    except stopping.Stop:
        pass
"""
    process = started(body)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


def test_handlers_are_put_back_and_other_threads_leave_them_alone():
    import threading

    from stillroom.cli.stopping import Stop, exit_code, heed, stoppable

    before, hook = [signal.getsignal(number) for number in CODES], sys.unraisablehook
    seen = []
    thread = threading.Thread(target=lambda: seen.append(heed()))
    thread.start()
    thread.join()
    assert seen == [{}]
    with pytest.raises(Stop) as stop, stoppable():
        signal.raise_signal(signal.SIGTERM)
    with stoppable():
        assert heed() == {}
    assert exit_code(stop.value) == 143
    assert exit_code(KeyboardInterrupt()) == 130
    assert [signal.getsignal(number) for number in CODES] == before
    assert sys.unraisablehook is hook
