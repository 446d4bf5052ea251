"""Parameters behind the `?` of an address: what nobody reads is refused, for its asker believes that it was heeded."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request

from stillroom.errors import nearest
from stillroom.serving.refusals import Refused

_LONGEST_NAME = 50


def require_known_parameters(request: Request) -> None:
    """A dependency of every route. Raises Refused with 422 where one is none that the route declares, or there twice."""
    require_parameters(request, [one.alias for one in request.scope["route"].dependant.query_params])


def require_parameters(request: Request, known: Sequence[str]) -> None:
    """Raises Refused with 422 where the request has a parameter that is none of these, or one more than once."""
    if not request.scope["query_string"]:
        return
    names = [name for name, _ in request.query_params.multi_items()]
    for given in names:
        if given not in known:
            name = given[:_LONGEST_NAME]
            there_are = f"Parameters: {', '.join(known)}" if known else "There are none at this address"
            text = f"There is no parameter {name} here.{nearest(name, tuple(known))} {there_are}."
            raise Refused(422, text, "no_parameter")
        if (times := names.count(given)) > 1:
            raise Refused(422, f"The parameter {given} is given {times} times; give it once.", "parameter_repeated")


def values_wanted(error: RequestValidationError) -> str:
    """What the parameters may be that are not as their routes declare them, a sentence for each."""
    return " ".join(f"The parameter {one['loc'][-1]} {_wanted(one)}." for one in error.errors())


def _wanted(one: dict[str, object]) -> str:
    """The rest of a sentence, of one of pydantic's errors."""
    context = one.get("ctx")
    if isinstance(context, dict) and "expected" in context:
        return f"may be {str(context['expected']).replace(chr(39), '')}"
    return "may be true or false" if one["type"] == "bool_parsing" else "is not as openapi.json has it"
