"""What `stillroom serve` costs beside a bare ONNX Runtime loop over the same files, and what several times its load does.

    python benchmarks/serve.py RUN IMAGES [--seconds 60] [--over 4] [--out serve.json]

The server and the bare loop run on the first core of this machine, the clients on the second, so that neither takes time from
the other; without two cores it ends. CPU is what the operating system counts for the server's process. Loop and clients take
turns, so that both see what else the machine does, and medians of the turns are told. In the overload, requests come at fixed
times whatever became of those before, over connections that are kept; latency counts from when a request was due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

SERVER_CORE, CLIENT_CORE = 0, 1
DEADLINE_S = 2.0
CLIENTS = (1, 8, 32)
TURNS, TURN_S = 3, 5.0
_TICK_HZ = os.sysconf("SC_CLK_TCK")


def bare(run: Path, contents: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Milliseconds of CPU per image of the loop that anybody would write: decode, resize, run; nothing else."""
    from stillroom import Predictor
    from stillroom.data.files import decode_image

    predictor = Predictor.load(run, threads=1)
    names = ("logits", "probabilities", *(["distance"] if predictor.foreign else []))

    def prepared(content: bytes) -> np.ndarray:
        return predictor.prepare(decode_image(BytesIO(content)))

    taken: dict[str, list[float]] = {"batch_1": [], "batch_8": []}
    for _ in range(rounds):
        start = time.process_time()
        for content in contents:
            predictor.outputs(prepared(content)[None], names)
        taken["batch_1"].append((time.process_time() - start) / len(contents) * 1e3)
        start = time.process_time()
        for first in range(0, len(contents), 8):
            predictor.outputs(np.stack([prepared(content) for content in contents[first : first + 8]]), names)
        taken["batch_8"].append((time.process_time() - start) / len(contents) * 1e3)
    return {name: statistics.median(values) for name, values in taken.items()}


# -- the server, watched ----------------------------------------------------------------------------------------------
class Server:
    """`stillroom serve` on the server's core."""

    def __init__(self, run: Path) -> None:
        command = [sys.executable, "-m", "stillroom", "serve", str(run), "--port", "0", "--deadline", str(DEADLINE_S)]
        self.process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"Serving at http://127.0.0.1:(\d+)", line):
                self.port = int(found[1])
                break
        self._log = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def cpu(self) -> float:
        """Seconds of CPU so far, of user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK_HZ

    def rss(self) -> float:
        """MB of memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) / 1e3 if found else float("nan")

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._log.wait(10)


@dataclass
class Reply:
    """One response: the status (0 where the connection broke), seconds since it was due, and when it was due."""

    status: int
    seconds: float
    due: float
    again: bool = False


class Connection:
    """One kept connection that asks one thing after another."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes, due: float) -> Reply:
        """One request; asked once more, as HTTP clients do, where a kept connection had just been closed for being idle."""
        kept = self.writer is not None
        try:
            if self.writer is None or self.writer.is_closing():
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            assert self.reader is not None
            self.writer.write(request)
            head = await self.reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            length = re.search(rb"content-length: (\d+)", head)
            if length:
                await self.reader.readexactly(int(length[1]))
            if b"connection: close" in head:
                self.close()
            return Reply(status, time.perf_counter() - due, due, b"retry-after" in head)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            if kept and not getattr(error, "partial", b""):
                return await self.ask(request, due)
            return Reply(0, time.perf_counter() - due, due)

    def close(self) -> None:
        if self.writer is not None:
            with suppress(OSError):
                self.writer.close()
            self.writer = None


def requests_of(contents: Sequence[bytes]) -> list[bytes]:
    """Whole requests, head and body."""
    head = "POST /v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: image/jpeg\r\ncontent-length: {}\r\n\r\n"
    return [head.format(len(content)).encode() + content for content in contents]


async def closed(server: Server, requests: Sequence[bytes], clients: int, seconds: float) -> dict[str, float]:
    """So many clients that each ask again as soon as they are answered."""
    replies: list[Reply] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        connection, place = Connection(server.port), number
        while time.perf_counter() < end:
            replies.append(await connection.ask(requests[place % len(requests)], time.perf_counter()))
            place += clients
        connection.close()

    before, start = server.cpu(), time.perf_counter()
    await asyncio.gather(*map(client, range(clients)))
    wall, cpu = time.perf_counter() - start, server.cpu() - before
    good = [reply for reply in replies if reply.status == 200]
    return {
        "clients": clients,
        "per_s": len(good) / wall,
        "cpu_ms": cpu / len(replies) * 1e3,
        "busy": cpu / wall,
        "p50_ms": quantile(good, 0.5),
        "p99_ms": quantile(good, 0.99),
        "not_200": len(replies) - len(good),
    }


async def overload(server: Server, requests: Sequence[bytes], rate: float, seconds: float) -> dict[str, Any]:
    """Requests at fixed times, whatever became of those before."""
    idle: list[Connection] = []
    replies: list[Reply] = []
    memory: list[float] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one(number: int, due: float) -> None:
        connection = idle.pop() if idle else Connection(server.port)
        replies.append(await connection.ask(requests[number % len(requests)], due))
        idle.append(connection)

    start, before = time.perf_counter(), server.cpu()
    count = int(rate * seconds)
    for number in range(count):
        due = start + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(number, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if number % max(1, int(rate)) == 0:
            memory.append(server.rss())
    sent = time.perf_counter() - start
    cpu = server.cpu() - before
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    good = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 503]
    return {
        "offered_per_s": count / sent,
        "seconds": sent,
        "busy": cpu / sent,
        "statuses": dict(Counter(reply.status for reply in replies)),
        "goodput_per_s": sum(reply.due + reply.seconds <= start + sent for reply in good) / sent,
        "accepted_p50_ms": quantile(good, 0.5),
        "accepted_p99_ms": quantile(good, 0.99),
        "refused_p50_ms": quantile(refused, 0.5),
        "refused_p99_ms": quantile(refused, 0.99),
        "refusals_with_retry_after": sum(reply.again for reply in refused),
        "memory_mb": [memory[0], max(memory), memory[-1]],
        "connections": len(idle),
    }


async def recovery(server: Server, requests: Sequence[bytes]) -> float:
    """Seconds after the overload until twenty answers in a row come as fast as in quiet: within 100 ms."""
    start, row, connection = time.perf_counter(), 0, Connection(server.port)
    while row < 20 and time.perf_counter() < start + 30:
        reply = await connection.ask(requests[row], time.perf_counter())
        row = row + 1 if reply.status == 200 and reply.seconds < 0.1 else 0
        normal = time.perf_counter() - start
    return normal


def quantile(replies: Sequence[Reply], share: float) -> float:
    """Milliseconds."""
    return float(np.quantile([reply.seconds for reply in replies], share) * 1e3) if replies else float("nan")


def medians(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


async def measure(run: Path, contents: Sequence[bytes], seconds: float, over: float) -> dict[str, Any]:
    requests = requests_of(contents)
    found: dict[str, Any] = {"load": os.getloadavg()}
    loop = [sys.executable, __file__, str(run), "-", "--bare"]

    def bare_now() -> dict[str, float]:
        done = subprocess.run(
            loop, input=json.dumps([c.hex() for c in contents]), capture_output=True, text=True, check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )  # fmt: skip
        return json.loads(done.stdout)

    server = Server(run)
    try:
        await closed(server, requests, 8, 2.0)
        turns = [
            {"bare": bare_now()} | {count: await closed(server, requests, count, TURN_S) for count in CLIENTS}
            for _ in range(TURNS)
        ]
        found["turns"] = turns
        found["bare_ms"] = medians([turn["bare"] for turn in turns])
        found["closed"] = [
            medians([turn[count] | {"of_bare": turn[count]["cpu_ms"] / turn["bare"]["batch_1"]} for turn in turns])
            for count in CLIENTS
        ]
        capacity = found["closed"][-1]["per_s"]
        found["overload"] = await overload(server, requests, over * capacity, seconds)
        found["normal_after_s"] = await recovery(server, requests)
        found["after"] = await closed(server, requests, CLIENTS[-1], TURN_S)
        found["memory_after_mb"] = server.rss()
    finally:
        server.end()
    found["load_after"] = os.getloadavg()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--over", type=float, default=4.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        print(json.dumps(bare(given.run, [bytes.fromhex(text) for text in json.load(sys.stdin)], 2)))
        return
    if not {SERVER_CORE, CLIENT_CORE} <= os.sched_getaffinity(0):
        sys.exit("This takes two cores: one for the server, one for the clients.")
    os.sched_setaffinity(0, {CLIENT_CORE})
    paths = sorted(path for path in given.images.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    contents = [path.read_bytes() for path in paths][:200]
    found = asyncio.run(measure(given.run, contents, given.seconds, given.over))
    found["images"] = {"count": len(contents), "mean_kb": sum(map(len, contents)) / len(contents) / 1e3}
    text = json.dumps(found, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
