"""Reading the events of a synchronous check, within limits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec
from fastapi import Request

from monitor.admin.problem import ProblemError

JSON = "application/json"
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")


class Shape(Enum):
    """How events came, and so how decisions go back."""

    ONE = "one event"
    LIST = "an object with a list of events"
    LINES = "one event a line"


@dataclass(frozen=True, slots=True)
class Checked:
    """The events of a request, each as its original bytes."""

    shape: Shape
    values: list[bytes]


class _Envelope(msgspec.Struct, gc=False):
    events: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


_envelope = msgspec.json.Decoder(_Envelope)


async def read_events(request: Request, max_bytes: int, max_events: int) -> Checked:
    """The events in the body of ``request``.

    Parameters
    ----------
    request
        JSON (one event, or ``{"events": […]}``) or newline-delimited JSON.
    max_bytes, max_events
        What goes over is refused.

    Raises
    ------
    ProblemError
        400 for JSON that cannot be read, 413 over a limit, 415 for another content type. Events
        that are JSON but no events are not errors here: each gets the verdict invalid.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON and kind not in NDJSON:
        raise ProblemError(415, f"Send events with content-type {JSON} or {NDJSON[0]}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(415, "Send the events uncompressed, without a content-encoding.")
    body = await read_bytes(request, max_bytes)
    checked = _split(body) if kind in NDJSON else _parse(body)
    if len(checked.values) > max_events:
        raise ProblemError(
            413,
            f"{len(checked.values)} events in one request; send at most {max_events} at a time.",
            max_events=max_events,
        )
    return checked


async def read_bytes(request: Request, max_bytes: int) -> bytes:
    """The body; stops reading as soon as it is too large. Raises ProblemError 413."""
    too_large = ProblemError(
        413, f"The body is larger than {max_bytes} bytes; send less.", max_bytes=max_bytes
    )
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > max_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def _split(body: bytes) -> Checked:
    lines = (line.removesuffix(b"\r") for line in body.split(b"\n"))
    return Checked(Shape.LINES, [line for line in lines if line.strip()])


def _parse(body: bytes) -> Checked:
    try:
        envelope = _envelope.decode(body)
    except msgspec.ValidationError as error:
        raise ProblemError(400, f'Send one event, or {{"events": […]}}: {error}.') from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(400, f"The body is not JSON: {error}.") from error
    if envelope.events is msgspec.UNSET:
        return Checked(Shape.ONE, [body])
    return Checked(Shape.LIST, [bytes(event) for event in envelope.events])
