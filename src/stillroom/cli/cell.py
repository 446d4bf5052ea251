"""One cell of a grid in a process of its own: ``python -m stillroom.cli.cell SETTINGS FOLDER [FLAGS]`` distils or resumes.

Its standard input is a line of life to the process that started it: when that ends, however it ends, the cell stops as
it does on Ctrl-C, and can be resumed.
"""

from __future__ import annotations

import _thread
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from stillroom.bench.engines import COMMAND
from stillroom.cli.app import main
from stillroom.cli.stopping import die_quietly, exit_code, heed

_GRACE_S = 20.0


def run_cell(settings: Path, folder: Path, flags: Sequence[str] = ()) -> None:
    """Begin the run, go on with it, or return at once where it is finished. Ends the process as the command line does."""
    _wait_for_others()
    if not (folder / "manifest.json").exists():  # killed, if ever begun, before it was a run: nothing is trained in it
        shutil.rmtree(folder, ignore_errors=True)
        command = ["distill", "--settings", str(settings), *flags, "--out", str(folder)]
        print(f"{COMMAND}{shlex.join(command)}", flush=True)
        main(command)
    elif not (folder / "report.html").exists():
        print(f"{COMMAND}distill --resume {folder}", flush=True)
        main(["distill", "--resume", str(folder)])


def _wait_for_others() -> None:
    """Two processes never work in one folder: the second waits for the log, which is locked while a cell writes it."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(sys.stdout.fileno(), fcntl.LOCK_EX)


def _stop_with_parent() -> None:
    os.read(0, 1)  # returns when the other end is closed; sys.stdin would be locked when Python ends
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:  # a signal of its own also ends a wait for the lock
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
    time.sleep(_GRACE_S)
    os._exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a script's background job ignores it
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray's workers hand it down blocked
    heed()
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        run_cell(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    except KeyboardInterrupt as stop:  # while it waited
        sys.exit(exit_code(stop))
    finally:
        die_quietly()
