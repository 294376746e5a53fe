"""The HTTP interface: health, metrics, status, decisions on demand, and the desk's routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal, Protocol

from fastapi import FastAPI, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool

from monitor.admin.audit_routes import audit_router, session_router
from monitor.admin.auth import CSRF, Auth, Gatekeeper
from monitor.admin.blast_routes import blast_router
from monitor.admin.body import JSON, NDJSON, Shape, read_events
from monitor.admin.chain_routes import ChainsView, chain_router
from monitor.admin.desk import Desk
from monitor.admin.desk_parts import OrjsonResponse
from monitor.admin.drill_routes import drill_router
from monitor.admin.incident_routes import IncidentsView, incident_router
from monitor.admin.key_routes import key_router
from monitor.admin.policy_routes import policy_router
from monitor.admin.problem import Guard, ProblemError, install
from monitor.admin.quarantine_routes import quarantine_router
from monitor.admin.schemas import (
    CHECK_BODY,
    CHECK_RESPONSES,
    Decision,
    Flagged,
    Health,
    problems,
)
from monitor.core.errors import MonitorError
from monitor.core.types import DecisionBatch, Verdict

ALIVE_SECONDS = 60.0
MAX_FLAGGED = 1000
DESCRIPTION = """\
A gate between labelled feedback and the online models that learn from it. This interface tells
how the gate fares, judges events on demand, changes the live policy and reviews what was held back.

Where the service has tokens, send one as `Authorization: Bearer …`. A viewer reads, an operator
changes the policy and reviews, an admin also erases. Errors are problem documents (RFC 9457) whose
`detail` says what to do; what was refused has changed nothing.
"""
SECURITY_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "From `token create`."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "monitor_session",
        "description": f"From POST /v1/session; changes also bring {CSRF}.",
    },
}


class StatusView(Protocol):
    """What the interface reads of the service's status."""

    @property
    def ready(self) -> bool:
        """Partitions are assigned and their state is restored."""

    @property
    def started(self) -> bool:
        """State was restored once, or the loop goes round without a partition for it."""

    def idle_seconds(self) -> float:
        """Seconds since the loop last moved."""

    def snapshot(self) -> dict[str, Any]:
        """Everything that is counted, ready for JSON."""

    def flagged(self, limit: int = 50, verdict: Verdict | None = None) -> list[dict[str, Any]]:
        """The latest decision records other than acceptance, newest first."""


class Judge(Protocol):
    """What the interface asks of the service."""

    def peek(self, values: Sequence[bytes], partition: int | None = None) -> DecisionBatch:
        """What the gate would decide now, without learning. Raises MonitorError."""


class HttpLimits(Protocol):
    """The settings the interface needs; the section ``http`` of the settings."""

    @property
    def max_body_bytes(self) -> int:
        """Largest body of a check."""

    @property
    def max_check_events(self) -> int:
        """Most events of a check."""


class HasHttp(Protocol):
    """Settings with a section ``http``."""

    @property
    def http(self) -> HttpLimits:
        """That section."""


class Exposition(Protocol):
    """Where metrics come from (:class:`~monitor.telemetry.metrics.Metrics`)."""

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics as text, and the content type."""


def create_app(
    *,
    status: StatusView,
    service: Judge,
    settings: HasHttp,
    metrics: Exposition | None = None,
    desk: Desk | None = None,
    auth: Auth | None = None,
    hosts: Sequence[str] = (),
    incidents: IncidentsView | None = None,
    chains: ChainsView | None = None,
) -> FastAPI:
    """The application.

    Parameters
    ----------
    status
        Counts and readiness of the running service.
    service
        Judges events for ``POST /v1/check``.
    settings
        Limits of that request.
    metrics
        Answers ``/metrics``; without it that address answers 404.
    desk
        The live policy, the quarantine and the audit trail; without it their addresses answer 503.
    auth
        Tells who asks. By default everybody may do everything: for a loopback address only.
    hosts
        Names by which the service is known, beside this machine's own.
    incidents
        What flagged events were grouped into; without it their addresses answer 503.
    chains
        The audit chains and the lives of events; without it their addresses answer 503.
    """
    auth = Auth() if auth is None else auth
    if desk is not None:
        auth.note = desk.log.note
    app = FastAPI(
        title="poisoning-monitor",
        version=_version(),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        default_response_class=OrjsonResponse,
    )
    install(app)
    # The last one is asked first.
    app.add_middleware(Gatekeeper, auth=auth)
    app.add_middleware(Guard, login=auth.login_needed, hosts=tuple(hosts))
    _add_health(app, status)
    if metrics is not None:
        _add_metrics(app, metrics)
    _add_status(app, status)
    _add_check(app, service, settings.http)
    app.include_router(policy_router(desk))
    app.include_router(key_router(desk))
    app.include_router(quarantine_router(desk))
    app.include_router(drill_router(desk))
    app.include_router(blast_router(desk))
    app.include_router(audit_router(desk))
    app.include_router(chain_router(chains))
    app.include_router(incident_router(incidents))
    app.include_router(session_router(auth))
    _describe(app, auth)
    return app


def _describe(app: FastAPI, auth: Auth) -> None:
    """Have /openapi.json say how to log in, and where one need not."""
    built: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not built:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            document.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
            if auth.login_needed:
                document["security"] = [{"token": []}, {"session": []}]
            for path, methods in document["paths"].items():
                for method, operation in methods.items():
                    if auth.is_open(method.upper(), path):
                        operation["security"] = []
            built.update(document)
        return built

    app.openapi = openapi  # type: ignore[method-assign]


def _add_health(app: FastAPI, status: StatusView) -> None:
    @app.get(
        "/healthz",
        tags=["health"],
        summary="Is the loop alive?",
        response_model=Health,
        responses=problems(503),
    )
    def healthz() -> Response:
        """200 while the loop moves; an empty poll counts. 503 means: restart the process."""
        stopped = status.snapshot().get("stopped")
        if stopped is not None:
            raise ProblemError(503, f"The loop has ended: {stopped}.")
        idle = status.idle_seconds()
        if idle > ALIVE_SECONDS:
            raise ProblemError(503, f"The loop has not moved for {idle:.0f} seconds.")
        return OrjsonResponse({"status": "alive", "idle_seconds": idle})

    @app.get(
        "/readyz",
        tags=["health"],
        summary="Does the gate judge?",
        response_model=Health,
        responses=problems(503),
    )
    def readyz(
        standby: Annotated[
            bool, Query(description="true: an instance that waits for partitions counts as ready.")
        ] = False,
    ) -> Response:
        """200 once partitions are assigned and their state is restored, else 503 with why."""
        if not status.ready and not (standby and _stands_by(status)):
            raise ProblemError(503, _why_not_ready(status.snapshot()))
        word = "ready" if status.ready else "standby"
        return OrjsonResponse({"status": word, "idle_seconds": status.idle_seconds()})

    @app.get(
        "/startupz",
        tags=["health"],
        summary="Is the start over?",
        response_model=Health,
        responses=problems(503),
    )
    def startupz() -> Response:
        """200 once state was restored, or none was given to this instance for a while.

        Until then 503, and a silent loop is no reason to restart the process: it reads the stored
        state and judges what came after it again. Once it was 200 it stays so until the loop ends.
        """
        if not status.started:
            raise ProblemError(503, _why_not_ready(status.snapshot()))
        return OrjsonResponse({"status": "started", "idle_seconds": status.idle_seconds()})


def _stands_by(status: StatusView) -> bool:
    """Whether it has begun, and is without partitions because others have them all."""
    return status.started and not status.snapshot().get("partitions")


def _why_not_ready(snapshot: Mapping[str, Any]) -> str:
    stopped = snapshot.get("stopped")
    if stopped is not None:
        return f"The loop has ended: {stopped}."
    if not snapshot.get("partitions"):
        return "No input partition is assigned and restored yet."
    return "The state of the assigned partitions is being restored."


def _add_metrics(app: FastAPI, metrics: Exposition) -> None:
    @app.get(
        "/metrics",
        tags=["metrics"],
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Text exposition format."}},
    )
    def exposition(request: Request) -> Response:
        """Counters, gauges and histograms; deploy/metrics.md explains each."""
        text, kind = metrics.expose(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})


def _add_status(app: FastAPI, status: StatusView) -> None:
    @app.get("/v1/status", tags=["status"], summary="Counts since the start")
    def read_status() -> Response:
        """Events by verdict, action, family and class; rates, lag, time by stage, policy."""
        return OrjsonResponse(status.snapshot())

    @app.get(
        "/v1/events/flagged",
        tags=["status"],
        summary="The latest events that were not plainly accepted",
        response_model=Flagged,
        responses=problems(422),
    )
    def flagged(
        limit: Annotated[int, Query(ge=1, le=MAX_FLAGGED, description="At most so many.")] = 50,
        verdict: Annotated[
            Literal["flag", "quarantine", "invalid"] | None,
            Query(description="Only those with this verdict."),
        ] = None,
    ) -> Response:
        """Decision records, newest first."""
        chosen = None if verdict is None else Verdict[verdict.upper()]
        return OrjsonResponse({"events": status.flagged(limit, chosen)})


def _add_check(app: FastAPI, service: Judge, limits: HttpLimits) -> None:
    @app.post(
        "/v1/check",
        tags=["check"],
        summary="Judge events without learning from them",
        response_model=Decision,
        responses=CHECK_RESPONSES,
        openapi_extra={"requestBody": CHECK_BODY},
    )
    async def check(request: Request) -> Response:
        """What the gate would decide about these events now.

        They are not routed, not counted and not learned. Send one event and get one decision;
        send `{"events": […]}` and get `{"decisions": […]}`; send one event a line
        (application/x-ndjson) and get one decision a line. A record that is no event costs only
        itself: its verdict is `invalid`, with the cause. `offset` (or `line`) is where the event
        would stand if it came next.
        """
        checked = await read_events(request, limits.max_body_bytes, limits.max_check_events)
        records = await run_in_threadpool(_judge, service, checked.values)
        if checked.shape is Shape.LINES:
            return Response(b"".join(line + b"\n" for line in records), media_type=NDJSON[0])
        if checked.shape is Shape.LIST:
            return Response(b'{"decisions":[' + b",".join(records) + b"]}", media_type=JSON)
        return Response(records[0], media_type=JSON)


def _judge(service: Judge, values: list[bytes]) -> Sequence[bytes]:
    if not values:
        return ()
    try:
        return service.peek(values).records
    except MonitorError as error:
        raise ProblemError(503, str(error)) from error


def _version() -> str:
    try:
        return version("poisoning-monitor")
    except PackageNotFoundError:
        return "0"
