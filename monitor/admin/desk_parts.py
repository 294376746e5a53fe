"""What the desk's routes share: roles, the desk itself, records as JSON."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Annotated, Any

import orjson
from fastapi import Depends, Response

from monitor.admin.auth import require
from monitor.admin.desk import Desk
from monitor.admin.people import Person, Role
from monitor.admin.problem import ProblemError
from monitor.admin.schemas import Described, problems
from monitor.core.desk import Held

Viewer = Annotated[Person, Depends(require(Role.VIEWER))]
Operator = Annotated[Person, Depends(require(Role.OPERATOR))]
Admin = Annotated[Person, Depends(require(Role.ADMIN))]
# Named in a route's decorator they are asked before its body is read.
VIEWER = Depends(require(Role.VIEWER))
OPERATOR = Depends(require(Role.OPERATOR))
ADMIN = Depends(require(Role.ADMIN))
NO_DESK = (
    "This process has no desk: live tuning and review need the running service, not a replay "
    "or a bare gate."
)


class OrjsonResponse(Response):
    """JSON by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Mappings, lists, records, numbers and strings; NaN becomes null."""
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)


def present(desk: Desk | None) -> Desk:
    """The desk. Raises ProblemError 503 where there is none."""
    if desk is None:
        raise ProblemError(503, NO_DESK)
    return desk


def answers(*codes: int) -> Described:
    """OpenAPI descriptions of the problems a desk's route may answer with."""
    return problems(*sorted({401, 403, 422, 429, 503, *codes}))


def overview(held: Held) -> dict[str, Any]:
    """A held event without its bytes and decision."""
    values = asdict(held)
    del values["value"], values["decision"]
    return values


def whole(held: Held) -> dict[str, Any]:
    """A held event with its bytes and decision."""
    try:
        text = held.value.decode()
    except UnicodeDecodeError:
        text = None
    coded = base64.b64encode(held.value).decode()
    return overview(held) | {"decision": held.decision, "value": text, "value_base64": coded}
