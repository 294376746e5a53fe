"""Bodies of JSON that a model describes, read within a limit; and their place in /openapi.json."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError

from monitor.admin.body import JSON, read_bytes
from monitor.admin.problem import ProblemError, first_of
from monitor.admin.schemas import inline

MAX_BODY_BYTES = 1 << 20
M = TypeVar("M", bound=BaseModel)


def reads(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """A dependency of routes: the body as ``model``.

    It answers 415 for another content type, which no form of another site can send, 413 for more
    than a MiB, 400 for what is not JSON, 422 for what the model refuses.
    """

    async def read(request: Request) -> M:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON or request.headers.get("content-encoding", "identity") != "identity":
            raise ProblemError(415, f"Send JSON with content-type {JSON}, uncompressed.")
        body = await read_bytes(request, MAX_BODY_BYTES)
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ProblemError(400, f"The body is not JSON: {error}.") from error
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise ProblemError(422, first_of(error.errors())) from error

    return read


def body_of(model: type[BaseModel], example: Any) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads ``model``."""
    content = {JSON: {"schema": inline(model), "example": example}}
    return {"requestBody": {"required": True, "content": content}}
