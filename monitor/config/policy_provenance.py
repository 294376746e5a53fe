"""The part of the policy that says who may sign for whom: keys, and rules for sources.

It belongs to the policy, so that it comes to every replica the same way: one ledger, versions with
author and reason, differences, a second person's approval, and a new version that holds from a
micro-batch's boundary on. Secrets are no part of it, only their names.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from monitor.config.policy_parts import MAX_CHARS, PolicyPart, Until, Why

MAX_KEYS = 1_000
MAX_RULES = 1_000
MAX_PATTERNS = 100
PUBLIC_KEY_BYTES = 32
ANY = "*"
HEX = re.compile(r"[0-9a-f]{32,}")

Signature = Literal["required", "optional", "forbidden"]
KeyId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")]
SecretName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=MAX_CHARS)]


class SigningKey(PolicyPart):
    """A key, and for which sources it may speak."""

    id: KeyId = Field(description="What the header key-id says.")
    algorithm: Literal["ed25519", "hmac-sha256"] = Field(description="How it signs.")
    public_key: str | None = Field(
        default=None, description="ed25519: the 32 bytes of the public key in base64."
    )
    secret: SecretName | None = Field(
        default=None,
        description="hmac-sha256: the name of the secret, which every replica has by itself (see "
        "provenance.secret_dir); never the secret.",
    )
    sources: Annotated[list[Pattern], Field(min_length=1, max_length=MAX_PATTERNS)] = Field(
        default_factory=lambda: [ANY],
        description="Patterns of the sources it may speak for; * stands for any characters.",
    )
    valid_from: Until | None = Field(
        default=None, description="Unix seconds from which on it may have signed."
    )
    valid_until: Until | None = Field(
        default=None, description="Unix seconds from which on it may no more have signed."
    )
    revoked_at: Until | None = Field(
        default=None,
        description="Unix seconds at which it was revoked. From that version of the policy on all "
        "its events are refused, whatever time they claim. Final.",
    )
    revoked_after_ts: Until | None = Field(
        default=None,
        description="Of a revoked key: only events from this time on are refused, Unix seconds.",
    )
    why: Why = Field(default="", description="For people.")

    @field_validator("public_key")
    @classmethod
    def _is_a_key(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                raw = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError) as error:
                raise ValueError("is not base64") from error
            if len(raw) != PUBLIC_KEY_BYTES:
                raise ValueError(f"has {len(raw)} bytes; an ed25519 public key has 32")
        return text

    @field_validator("secret")
    @classmethod
    def _is_a_name(cls, text: str | None) -> str | None:
        # Capitals, which base64 has, are no part of a name either.
        if text is not None and HEX.fullmatch(text):
            raise ValueError("looks like a secret itself; give the name of one")
        return text

    @model_validator(mode="after")
    def _sensible(self) -> SigningKey:
        by_public = self.algorithm == "ed25519"
        if (self.public_key is not None) != by_public or (self.secret is not None) == by_public:
            needed, other = ("public_key", "secret") if by_public else ("secret", "public_key")
            raise ValueError(f"{self.algorithm} needs {needed}, and has no {other}")
        if None not in (self.valid_from, self.valid_until) and self.valid_from >= self.valid_until:  # type: ignore[operator]
            raise ValueError("valid_from must be before valid_until")
        if self.revoked_after_ts is not None and self.revoked_at is None:
            raise ValueError("revoked_after_ts needs revoked_at")
        return self


class SourceRule(PolicyPart):
    """Whether the events of some sources must, may or must not be signed."""

    sources: Pattern = Field(description="Pattern of sources; * stands for any characters.")
    signature: Signature = Field(
        description="required, optional (a signature that is there must be good) or forbidden."
    )
    why: Why = Field(default="", description="For people.")


class ProvenancePolicy(PolicyPart):
    """Who may sign for whom. Without keys, rules and default nothing is looked at."""

    default: Signature = Field(
        default="optional",
        description="Signatures of sources that no rule names: required, optional or forbidden.",
    )
    rules: Annotated[list[SourceRule], Field(max_length=MAX_RULES)] = Field(
        default_factory=list,
        description="By pattern of sources: {sources, signature, why}. The first that fits counts.",
    )
    keys: Annotated[list[SigningKey], Field(max_length=MAX_KEYS)] = Field(
        default_factory=list,
        description="{id, algorithm: ed25519 | hmac-sha256, public_key, secret, sources, "
        "valid_from, valid_until, revoked_at, revoked_after_ts, why}.",
    )
    refused: Literal["quarantine", "reject"] = Field(
        default="quarantine",
        description="What an event is whose signature is refused: quarantined, which holds it back "
        "in mode enforce, or invalid, which no mode lets pass.",
    )
    replay_window_seconds: Annotated[float, Field(gt=0.0, le=1e9)] | None = Field(
        default=None,
        description="A signed event is refused if its signed time (header signed-at, else ts) is "
        "more than this before the newest one of its key in the partition; null for no window.",
    )
    clock_skew_seconds: Annotated[float, Field(ge=0.0, le=86_400.0)] = Field(
        default=300.0,
        description="How far the clocks of producers and of the broker may be apart.",
    )

    @field_validator("keys")
    @classmethod
    def _once(cls, keys: list[SigningKey]) -> list[SigningKey]:
        seen: set[str] = set()
        for key in keys:
            if key.id in seen:
                raise ValueError(f"has the id {key.id!r} twice")
            seen.add(key.id)
        return keys

    @property
    def is_used(self) -> bool:
        """Whether signatures are looked at at all."""
        return bool(self.keys or self.rules or self.default != "optional")

    def key(self, key_id: str) -> SigningKey | None:
        """The key of that id."""
        return next((key for key in self.keys if key.id == key_id), None)
