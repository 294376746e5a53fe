"""The key registry over HTTP: a view of the policy's part about provenance, and its changes.

Each change makes the next version of the policy, as ``PUT /v1/policy`` does, and needs the role
admin: a key decides whose events are believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from monitor.admin.desk import Desk, PolicyDesk
from monitor.admin.desk_parts import ADMIN, VIEWER, Admin, OrjsonResponse, answers, present
from monitor.admin.desk_schemas import ChangeOut, Moment, Why
from monitor.admin.json_body import body_of, reads
from monitor.admin.policy_routes import UNCHANGED, IfMatch, Stale, base_of, changed, tag_of
from monitor.admin.schemas import Described
from monitor.core.desk import ConflictError
from monitor.provenance import edit

MAX_OVERLAP_SECONDS = 366 * 86_400.0
PUBLIC = {
    "id": "shop-2026-05",
    "algorithm": "ed25519",
    "public_key": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "sources": ["shop-*"],
}
KeyName = Annotated[str, Path(max_length=128, description="A key's id.")]
WAITS: Described = {202: {"model": ChangeOut, "description": "It waits for a second person."}}


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AddKeyIn(_In):
    """A key, as in the policy's provenance.keys, and why."""

    key: dict[str, Any] = Field(description="Never with a secret: an HMAC's is only named.")
    why: Why


class RevokeKeyIn(_In):
    """Why, and from which time of its events on if not all of them."""

    why: Why
    after_ts: Moment | None = Field(
        default=None,
        description="Unix seconds: events of the key from before stay good. Without it none does.",
    )


class RotateKeyIn(AddKeyIn):
    """The new key, why, and how long the old one is still good."""

    overlap_seconds: FiniteFloat = Field(default=86_400.0, ge=0.0, le=MAX_OVERLAP_SECONDS)


class KeysOut(BaseModel):
    """The registry of a version of the policy."""

    model_config = ConfigDict(extra="allow")

    version: int
    keys: list[dict[str, Any]] = Field(description="As in the policy, each with its `state` now.")
    rules: list[dict[str, Any]]
    default: str


def key_router(desk: Desk | None) -> APIRouter:
    """The routes below ``/v1/keys``."""
    router = APIRouter(prefix="/v1/keys", tags=["keys"])

    def policy() -> PolicyDesk:
        return present(desk).policy

    _add_list(router, policy)
    _add_changes(router, policy)
    _add_rotation(router, policy)
    return router


def _add_list(router: APIRouter, policy: Callable[[], PolicyDesk]) -> None:
    @router.get(
        "",
        summary="The keys that may sign events, and the rules for sources",
        dependencies=[VIEWER],
        response_model=KeysOut,
        responses=answers(),
    )
    def keys() -> Response:
        """Of the policy that holds now; `ETag` is what a change brings in `If-Match`."""
        current = policy().current()
        part, now = edit.part_of(current.policy), time.time()
        listed = [{**key, "state": edit.state_of(key, now)} for key in part["keys"]]
        body = {"version": current.version, **part, "keys": listed}
        return OrjsonResponse(body, headers={"etag": tag_of(current)})


def _add_changes(router: APIRouter, policy: Callable[[], PolicyDesk]) -> None:
    @router.post(
        "",
        summary="Add a key",
        dependencies=[ADMIN],
        response_model=ChangeOut,
        responses=answers(400, 409, 412, 413, 415, 428) | WAITS,
        openapi_extra=body_of(AddKeyIn, {"key": PUBLIC, "why": "The shop signs from May on"}),
    )
    def add(
        person: Admin,
        body: Annotated[AddKeyIn, Depends(reads(AddKeyIn))],
        if_match: IfMatch = None,
    ) -> Response:
        """In force on every replica from its next micro-batch on."""
        return _proposed(
            *(policy, if_match, person.name, body.why),
            lambda document: edit.added(document, body.key),
        )

    @router.post(
        "/{key_id}/revoke",
        summary="Revoke a key, for good",
        dependencies=[ADMIN],
        response_model=ChangeOut,
        responses=answers(400, 404, 409, 412, 413, 415, 428) | WAITS,
        openapi_extra=body_of(RevokeKeyIn, {"why": "The laptop it was on is lost"}),
    )
    def revoke(
        person: Admin,
        key_id: KeyName,
        body: Annotated[RevokeKeyIn, Depends(reads(RevokeKeyIn))],
        if_match: IfMatch = None,
    ) -> Response:
        """From that version of the policy on every event of the key is refused.

        Whatever time the event claims, unless `after_ts` lets older ones stay good. For a key that
        is revoked like that already the answer is the present version, `state` `unchanged`.
        """
        return _proposed(
            *(policy, if_match, person.name, body.why),
            lambda document: edit.revoked(
                document, key_id, now=time.time(), after_ts=body.after_ts, why=body.why
            ),
        )


def _add_rotation(router: APIRouter, policy: Callable[[], PolicyDesk]) -> None:
    @router.post(
        "/{key_id}/rotate",
        summary="Replace a key",
        dependencies=[ADMIN],
        response_model=ChangeOut,
        responses=answers(400, 404, 409, 412, 413, 415, 428) | WAITS,
        openapi_extra=body_of(
            RotateKeyIn, {"key": PUBLIC, "why": "Every quarter", "overlap_seconds": 86400}
        ),
    )
    def rotate(
        person: Admin,
        key_id: KeyName,
        body: Annotated[RotateKeyIn, Depends(reads(RotateKeyIn))],
        if_match: IfMatch = None,
    ) -> Response:
        """Add the new key; the old one is good for events of the next `overlap_seconds`."""
        until = time.time() + body.overlap_seconds
        return _proposed(
            *(policy, if_match, person.name, body.why),
            lambda document: edit.rotated(document, key_id, body.key, until=until),
        )


def _proposed(
    policy: Callable[[], PolicyDesk],
    if_match: str | None,
    who: str,
    why: str,
    change: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> Response:
    """Make the next version of what ``If-Match`` names, where the change changes something."""
    base = base_of(if_match)
    with Stale(policy):
        now = policy().current()
        if now.version != base:
            raise ConflictError(f"version {base} is not the latest; that is {now.version}")
        document = change(now.policy)
        if document == now.policy:  # no version of its own for what is so already
            return OrjsonResponse(
                {**asdict(now), "state": UNCHANGED}, headers={"etag": tag_of(now)}
            )
        made = policy().propose(document, base=base, who=who, why=why)
    return changed(made)
