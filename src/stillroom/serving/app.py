"""The application: routes behind a gate, and errors in the words and the form of the rest."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stillroom.serving import dicomweb, kserve, pages, predicting
from stillroom.serving.access import Gate
from stillroom.serving.description import described
from stillroom.serving.desk import Desk
from stillroom.serving.parameters import require_known_parameters, values_wanted
from stillroom.serving.refusals import Refused
from stillroom.serving.settings import ServeSettings
from stillroom.serving.shelf import NOTICE, Shelf

_OF_FRAMEWORK = {
    404: "There is nothing at this address; /openapi.json tells what there is.",
    405: "This address is not asked by that method; the header Allow and /openapi.json tell by which.",
}


def make_app(settings: ServeSettings, shelf: Shelf, tell_others: Callable[[], None] | None = None) -> tuple[Gate, Desk]:
    """The ASGI application, and what it answers with.

    Args:
        settings: of the server.
        shelf: the opened models.
        tell_others: called after a model was loaded anew over HTTP, for other processes of the same server.
    """
    desk = Desk(settings, shelf)
    gate: Gate
    app = FastAPI(
        title="Stillroom",
        description=f"Classifiers of medical images. {NOTICE}",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # to http, behind a proxy of https: body and token would follow
    )
    routers = (
        predicting.routes(desk),
        dicomweb.routes(desk),
        kserve.routes(desk, lambda: not gate.draining, tell_others),
        pages.routes(desk),
    )
    for router in routers:
        app.include_router(router, dependencies=[Depends(require_known_parameters)])

    plain, guarded = app.openapi, settings.token is not None
    app.openapi = lambda: described(plain(), shelf, guarded=guarded)  # type: ignore[method-assign]

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        request.state.reason = error.reason
        return JSONResponse({"error": error.text}, error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def of_framework(request: Request, error: HTTPException) -> Response:
        text = _OF_FRAMEWORK.get(error.status_code, f"{error.detail}.")
        return JSONResponse({"error": text}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return JSONResponse({"error": values_wanted(error)}, 422)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "Something went wrong in the server; its log says where."}, 500)

    routes = frozenset(route.path for router in (app, *routers) for route in router.routes if isinstance(route, Route))
    gate = Gate(predicting.straight(app, desk), settings, routes, desk.refuse_if_full)
    return gate, desk
