"""Decoders in C that hang, print or fall on damaged pixels are asked in a process of their own, which may be ended.

Of 1,000 changed files (proofs/mutated_dicom.py) one hung CharLS for ever, and GDCM gave back half a picture for ten, with no
more than a line that it printed itself. Here what takes too long is ended, and what is printed counts as damage.
"""

from __future__ import annotations

import atexit
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from stillroom.data.table import UnreadableImage

SECONDS = 10.0
"""That a frame may take, and one more for every :data:`PIXELS`."""
PIXELS = 2_000_000

_DAMAGED = "its pixels are truncated or damaged"
_idle: list[subprocess.Popen[bytes]] = []
_owner = os.getpid()
_lock = threading.Lock()


def decode_apart(encoded: bytes, syntax: str, plugin: str, options: dict[str, Any]) -> tuple[np.ndarray, str]:
    """The stored values of a compressed frame, and what kind of colour they are by now.

    Args:
        encoded: the frame.
        syntax: its transfer syntax.
        plugin: pydicom's name of the decoder.
        options: what pydicom's decoders ask of a header.

    Raises:
        UnreadableImage: it is damaged, took longer than it may, or brought the decoder down.
    """
    limit = SECONDS + options["rows"] * options["columns"] / PIXELS
    process = _take()
    too_long = threading.Event()

    def end() -> None:
        too_long.set()
        process.kill()

    late = threading.Timer(limit, end)
    late.daemon = True
    late.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        _send(
            process.stdin, {"syntax": syntax, "plugin": plugin, "options": options | {"number_of_frames": 1}}, encoded
        )
        answer, content = _receive(process.stdout)
    except (OSError, ValueError, EOFError):
        process.kill()
        process.wait()
        raise UnreadableImage(
            f"its pixels took longer than {limit:.0f} s to decode, as damaged ones may"
            if too_long.is_set()
            else _DAMAGED
        ) from None
    finally:
        late.cancel()
        _give_back(process)
    if not answer:
        raise UnreadableImage(_DAMAGED)
    return np.frombuffer(content, answer["dtype"]).reshape(answer["shape"]), answer["kind"]


def _take() -> subprocess.Popen[bytes]:
    global _owner
    with _lock:
        if _owner != os.getpid():  # a fork, whose pipes are its parent's
            _owner = os.getpid()
            _idle.clear()
        while _idle:
            process = _idle.pop()
            if process.poll() is None:
                return process
    # Decoders import by bare names (GDCM asks for "dl"): nothing in the folder that one happens to stand in may answer.
    path = os.pathsep.join(place for place in sys.path if place and not _here(place))
    try:
        return subprocess.Popen(
            [sys.executable or "python", "-P", "-c", f"from {__name__} import work; work()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
        )
    except OSError as error:
        reason = (error.strerror or "unknown").lower()
        raise UnreadableImage(
            f"the process that decodes its kind of compression cannot be started ({reason})"
        ) from None


def _here(place: str) -> bool:
    """Whether it is the current folder, and holds no more of ours than a user's folder does."""
    return Path(place).resolve() == Path.cwd() and not Path(place, *__name__.split(".")[:1], "data").is_dir()


def _give_back(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with _lock:
            _idle.append(process)
        return
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


@atexit.register
def _end_all() -> None:
    if _owner == os.getpid():
        while _idle:
            process = _idle.pop()
            process.kill()
            process.wait()
            _give_back(process)


def _send(pipe: IO[bytes], told: dict[str, Any], content: bytes) -> None:
    head = json.dumps(told).encode()
    pipe.write(struct.pack("<QQ", len(head), len(content)) + head)
    pipe.write(content)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    lengths = struct.unpack("<QQ", _exactly(pipe, 16))
    head, content = (_exactly(pipe, length) for length in lengths)
    return json.loads(head), content


def _exactly(pipe: IO[bytes], length: int) -> bytes:
    found = pipe.read(length)
    if len(found) < length:
        raise EOFError
    return found


# -- the other process --------------------------------------------------------------------------------------------
def work() -> None:
    """Decode what comes in, until nothing more does. What a decoder prints goes to a file whose growth tells of it."""
    from stillroom.data.dicom.opening import be_quiet

    answers = os.fdopen(os.dup(1), "wb")
    with tempfile.TemporaryFile() as printed:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        be_quiet()
        with suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
            while True:
                asked, encoded = _receive(sys.stdin.buffer)
                os.ftruncate(printed.fileno(), 0)
                told, content = _decoded(asked, encoded)
                _send(answers, {} if os.fstat(printed.fileno()).st_size else told, content)


def _decoded(asked: dict[str, Any], encoded: bytes) -> tuple[dict[str, Any], bytes]:
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(asked["syntax"])
        found, told = decoder.as_array(
            encapsulate([encoded]), index=0, decoding_plugin=asked["plugin"], **asked["options"]
        )
    except Exception:  # a decoder raises nearly anything on damaged pixels
        return {}, b""
    about = {"shape": found.shape, "dtype": found.dtype.str, "kind": str(told["photometric_interpretation"])}
    return about, np.ascontiguousarray(found).tobytes()
