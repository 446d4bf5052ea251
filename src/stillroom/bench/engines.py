"""Where cells run: processes of this machine, or a Ray cluster. Both start the same process, so figures are the same."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from stillroom.errors import UsageError
from stillroom.files.cache import fingerprint
from stillroom.settings.whole import Settings, to_dict

Engine = Literal["processes", "ray"]

COMMAND = "$ stillroom "
"""A line of a log that begins so says what was started; what an earlier attempt said stands above it."""
LOST = -1000
"""In place of an exit code: Ray could not carry a task out."""
_POLL_S = 0.05
_STOP_S = 30.0


@dataclass(frozen=True)
class Job:
    """A cell to run.

    Attributes:
        settings: file of its settings.
        folder: its run folder.
        log: file that takes what it says.
        makes: names of what it may build in the cache, such as decoded images and a teacher's bank.
        cuda: whether it asks for a GPU.
        flags: of `stillroom distill`, beside its settings.
    """

    settings: Path
    folder: Path
    log: Path
    makes: frozenset[str]
    cuda: bool = False
    flags: tuple[str, ...] = ()

    @property
    def is_training(self) -> bool:
        """Whether the student is being trained: what it needs of the cache stands there by then."""
        with suppress(OSError):
            return '"role": "student"' in (self.folder / "history.jsonl").read_text(encoding="utf-8", errors="replace")
        return False


class Place(Protocol):
    """What can start jobs."""

    slots: int
    threads: int

    def start(self, job: Job) -> Any:
        """Start a job; returns a handle."""

    def ended(self, handle: Any) -> int | None:
        """Its exit code; None while it runs."""

    def stop(self, handles: Sequence[Any]) -> None:
        """Stop those that still run, as Ctrl-C would, and wait for them."""


def made_by(settings: Settings) -> frozenset[str]:
    """Names of what a run builds in the cache or finds there: equal names are equal work.

    They are: the decoded images; per teacher its answers to the images as they are; and its answers to their views.
    """
    plain = to_dict(settings)
    store = [settings.source, plain["data"], settings.seed if settings.source.startswith("phantoms") else None]
    made = {fingerprint("store", store)}
    for name in settings.recipe.teacher_names(settings):
        teacher = [store, name, {key: value for key, value in plain["teacher"].items() if key != "teacher"}]
        made |= {fingerprint("plain", teacher), fingerprint("views", teacher, plain["views"], settings.seed)}
    return frozenset(made)


def run_jobs(jobs: Sequence[Job], place: Place) -> Iterator[tuple[Job, int]]:
    """Run jobs in order, as many at a time as the place takes; yields each with its exit code as it ends.

    A job that would build what another is building waits until that one trains, so that nothing is computed twice; a
    later job may overtake it. Closing the iterator stops what runs.
    """
    waiting, running, made = list(jobs), dict[Any, Job](), set[str]()
    try:
        while waiting or running:
            for handle, job in list(running.items()):
                code = place.ended(handle)
                if code is not None:
                    made |= job.makes
                    del running[handle]
                    yield job, code
            for job in running.values():
                if not job.makes <= made and job.is_training:
                    made |= job.makes
            building = {name for job in running.values() for name in job.makes} - made
            ready = next((job for job in waiting if not job.makes & building), None)
            if ready and len(running) < place.slots:
                waiting.remove(ready)
                running[place.start(ready)] = ready
            else:
                time.sleep(_POLL_S)
    finally:
        place.stop(list(running))


class Processes:
    """Processes of this machine.

    Args:
        workers: how many run at a time.
        threads: of each.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self.slots, self.threads = workers, threads

    def start(self, job: Job) -> subprocess.Popen[bytes]:
        return launch(job, self.threads)

    def ended(self, handle: subprocess.Popen[bytes]) -> int | None:
        return handle.poll()

    def stop(self, handles: Sequence[subprocess.Popen[bytes]]) -> None:
        for handle in handles:
            handle.stdin.close()  # type: ignore[union-attr]
        for handle in handles:
            _reap(handle)


class Ray:
    """A Ray cluster: the one at ``$RAY_ADDRESS``, else one started on this machine for as long as the bench runs.

    A cell asks for ``threads`` CPUs, and for a GPU where its ``device`` takes one. Every machine of a cluster must see
    the output folder and the data under the same paths.

    Args:
        workers: how many cells run at a time; of a cluster that is there already, at most.
        threads: of each.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, workers: int, threads: int) -> None:
        # Ray's coming default: a task without a GPU of its own keeps CUDA_VISIBLE_DEVICES. Unset, it warns on every start.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError:
            raise UsageError(
                "Ray is not installed: `pip install 'stillroom[sweep]'`, or use --engine processes."
            ) from None
        self.ray, self.slots, self.threads = ray, workers, threads
        address = os.environ.get("RAY_ADDRESS")
        own: dict[str, Any] = {} if address else {"num_cpus": workers * threads, "include_dashboard": False}
        stops = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"No Ray cluster could be used at {address or 'this machine'}: {reason}") from None
        with suppress(ValueError, TypeError):  # in another thread than the main one neither did Ray
            signal.signal(signal.SIGTERM, stops)  # Ray puts its own in the place of the command line's
        self.gpus = ray.cluster_resources().get("GPU", 0)

    def start(self, job: Job) -> Any:
        remote = self.ray.remote(num_cpus=self.threads, num_gpus=int(bool(job.cuda and self.gpus)), max_retries=0)
        return remote(_launch_and_wait).remote(job, self.threads)

    def ended(self, handle: Any) -> int | None:
        done, _ = self.ray.wait([handle], timeout=0)
        if not done:
            return None
        try:
            return self.ray.get(handle)
        except self.ray.exceptions.RayError:
            return LOST

    def stop(self, handles: Sequence[Any]) -> None:
        for handle in handles:
            self.ray.cancel(handle)  # raises KeyboardInterrupt in the task
        if handles:
            self.ray.wait(list(handles), num_returns=len(handles), timeout=_STOP_S)
        self.ray.shutdown()


def make_place(engine: Engine, workers: int | None) -> Place:
    """Where cells run. Each has as many threads as the cores allow, and at most $OMP_NUM_THREADS.

    Args:
        engine: ``processes`` or ``ray``.
        workers: cells at a time. Default: half the cores, at least 1.

    Raises:
        UsageError: more workers than cores, or an engine that is not there.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(1, cores // 2) if workers is None else workers
    elsewhere = engine == "ray" and "RAY_ADDRESS" in os.environ  # the cluster's cores are counted there
    if workers < 1 or (workers > cores and not elsewhere):
        raise UsageError(f"--workers must lie between 1 and the number of cores here, {cores}; got {workers}.")
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(max(1, cores // workers), int(wanted) if wanted.isdigit() and int(wanted) else cores)
    return (Ray if engine == "ray" else Processes)(workers, threads)


def launch(job: Job, threads: int) -> subprocess.Popen[bytes]:
    """Start the process of a cell; closing its standard input stops it."""
    environment = os.environ | dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)
    )
    command = [sys.executable, "-m", "stillroom.cli.cell", str(job.settings), str(job.folder), *job.flags]
    with job.log.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # a Ctrl-C is for the bench, which stops its cells
        )


def _launch_and_wait(job: Job, threads: int) -> int:
    """The body of a Ray task."""
    process = launch(job, threads)
    try:
        while process.poll() is None:  # in small steps, so that a cancellation is heard
            time.sleep(_POLL_S)
    finally:
        process.stdin.close()  # type: ignore[union-attr]
        _reap(process)
    return process.returncode


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def reason_of(code: int, log: Path) -> str:
    """Why a cell failed, in one line: the error it printed, else the last line of its log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    start = max((number for number, line in enumerate(lines) if line.startswith(COMMAND)), default=-1)
    said = [line.strip() for line in lines[start + 1 :] if line.strip()]
    errors = [line for line in said if line.startswith("error: ")]
    if code == LOST:
        return "Ray lost the task: its machine went away, its memory was full, or it does not see the output folder."
    if code < 0:
        return f"killed by signal {-code}{' (the memory may have been full)' if code == -9 else ''}."
    if errors:
        return errors[-1].removeprefix("error: ")
    return said[-1] if said else f"exit code {code}."
