"""What all routes share: the models, the lines in which images wait for a thread, and the bounds of bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO
from typing import Any

from starlette.requests import Request

from stillroom.data.dicom.recognising import looks_like_dicom
from stillroom.deployment.prediction import Prediction
from stillroom.serving import metrics, work
from stillroom.serving.bodies import Bodies, Sent, files_in
from stillroom.serving.line import FULL, Kind, Line
from stillroom.serving.refusals import Refused
from stillroom.serving.settings import ServeSettings
from stillroom.serving.shelf import NOTICE, Served, Shelf
from stillroom.settings.methods import Method

_MAP_PASSES = 160
"""Images that a heat map is taken to cost as much as, until one was timed."""
_MAPS_AT_FIRST = 8
"""So many maps may wait before one was timed, however dear that guess makes them; the first one drawn corrects it."""


class Desk:
    """Made once by the application.

    Args:
        settings: of the server.
        shelf: the models.
    """

    def __init__(self, settings: ServeSettings, shelf: Shelf) -> None:
        self.settings, self.shelf = settings, shelf
        self.bodies = Bodies(settings.max_bytes, settings.body_seconds)
        threads = settings.threads_each
        self.answers = Line("answer", threads=threads, deadline=settings.deadline)
        self.maps = Line("map", threads=1, deadline=settings.explain_deadline, batch=1)
        for name, line in (("answer", self.answers), ("map", self.maps)):
            line.tell_waiting = metrics.WAITING.labels(name).set
            line.tell_batch = metrics.BATCHES.labels(name).observe

    def refuse_if_full(self, path: str) -> None:
        """Raises Refused where a path leads to a line that is full."""
        if path.endswith(("/predict", "/infer")):
            self.answers.refuse_if_full()
        elif path.endswith(("/explain", "/dicomweb/studies")):
            self.maps.refuse_if_full()

    def model(self, name: str | None) -> Served:
        """The model of this name, or the only one. Raises Refused with 404."""
        try:
            return self.shelf.only() if name is None else self.shelf[name]
        except KeyError as error:
            raise Refused(404, error.args[0], "no_model") from None

    @asynccontextmanager
    async def frames(self, request: Request) -> AsyncIterator[list[work.Frame]]:
        """The images that a request holds; its body counts as held until the block inside ends."""
        async with self.bodies.read(request) as content:
            most = self.settings.max_images
            files = files_in(content, request.headers.get("content-type", ""), most)
            request.state.noted = {"bytes": len(content), "files": len(files)}
            if any(_maybe_dicom(sent) for sent in files):  # whose headers take a while to read
                yield await asyncio.to_thread(work.frames_in, files, most)
            else:
                yield work.frames_in(files, most)

    def end(self) -> None:
        """Let the threads end."""
        self.answers.end()
        self.maps.end()

    async def predict(self, served: Served, frames: Sequence[work.Frame]) -> list[Prediction]:
        """An answer for each."""
        do = partial(work.predict, served, most=self.settings.max_pixels)
        kind = kind_of_work(served, "predict", do, served.seconds, lambda one: one.error is None)
        found: list[Prediction] = await self.answers.ask(kind, frames)
        for one in found:
            metrics.ANSWERS.labels(served.name, metrics.kind_of(one)).inc()
        return found

    async def explain(
        self, served: Served, frames: Sequence[work.Frame], method: Method, of: str | None
    ) -> list[work.Drawn]:
        """A heat map of each."""
        do = partial(_draw, served, method, self.settings.max_pixels)
        kind = kind_of_work(served, method, do, self._map_guess(served), lambda one: one.heat is not None)
        found: list[work.Drawn] = await self.maps.ask(kind, [(frame, of) for frame in frames])
        return found

    def _map_guess(self, served: Served) -> float:
        return min(_MAP_PASSES * served.seconds, FULL * self.maps.deadline / _MAPS_AT_FIRST)


def _draw(
    served: Served, method: Method, most: int, asked: Sequence[tuple[work.Frame, str | None]]
) -> list[work.Drawn]:
    return [work.explain(served, frame, method, of, most=most) for frame, of in asked]


def kind_of_work(
    served: Served,
    name: str,
    do: Callable[[Sequence[Any]], Sequence[Any]],
    guess: float,
    computed: Callable[[Any], bool] = lambda result: True,
) -> Kind:
    """What is asked of a model under this name, made when it is first asked: see :class:`Kind`."""
    if name not in served.kinds:
        served.kinds[name] = Kind(do, guess, computed)
    return served.kinds[name]


def _maybe_dicom(sent: Sent) -> bool:
    return looks_like_dicom(BytesIO(sent.content[:512]))


def body_of(served: Served, **rest: Any) -> dict[str, Any]:
    """An answer's JSON: which model gave it, what it is for, and the rest."""
    return {"model": served.to_dict(), "notice": NOTICE, **rest}
