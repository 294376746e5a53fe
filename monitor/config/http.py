"""The section ``http`` of the settings: where the interface listens, and whom it lets in."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from monitor.config.base import FileName, Section
from monitor.config.sections import Port, Positive, Seconds


class HttpSettings(Section):
    """The HTTP interface: health, metrics, checks, and the desk."""

    enabled: bool = Field(default=True, description="false starts no HTTP interface.")
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. Others than this machine's own need tokens_file, and "
        "tls_cert_file unless insecure is true.",
    )
    port: Port = Field(default=8765, description="Port to listen on; 0 picks a free one.")
    max_body_bytes: Positive = Field(
        default=16 << 20, description="Largest request body of POST /v1/check, in bytes."
    )
    max_check_events: Positive = Field(
        default=10_000, description="Most events in one POST /v1/check."
    )
    tokens_file: FileName | None = Field(
        default=None,
        description="File of hashed tokens, made by `poisoning-monitor token create`; read anew "
        "when it changes. null: no login, everybody who reaches the interface may do everything.",
    )
    open_metrics: bool = Field(
        default=True,
        description="true: /metrics needs no token. /healthz, /readyz and /startupz never do.",
    )
    tls_cert_file: FileName | None = Field(
        default=None, description="Certificate chain, PEM. With it the interface speaks TLS only."
    )
    tls_key_file: FileName | None = Field(
        default=None, description="Private key, PEM; null when it stands in tls_cert_file."
    )
    tls_client_ca_file: FileName | None = Field(
        default=None,
        description="Certificate authorities, PEM. With it clients need a certificate of theirs, "
        "beside a token.",
    )
    insecure: bool = Field(
        default=False,
        description="true lets the interface listen on other addresses without TLS: tokens then "
        "travel in the clear unless something in front of it speaks TLS.",
    )
    console: bool = Field(
        default=True,
        description="true: the console for people at the desk stands at /. It comes with the extra "
        "`console` of the package.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Host names by which the interface is asked for. Empty: with login any, "
        "without only localhost.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto "
        "are believed.",
    )
    login_failures: Positive = Field(
        default=10,
        description="So many failed logins within lockout_seconds shut a client address out.",
    )
    lockout_seconds: Seconds = Field(default=60.0, description="For how long it is shut out.")
    session_hours: Annotated[float, Field(gt=0.0, le=720.0)] = Field(
        default=12.0, description="How long a browser stays logged in."
    )

    @model_validator(mode="after")
    def _certificates_together(self) -> Self:
        if self.tls_cert_file is None and (self.tls_key_file or self.tls_client_ca_file):
            raise ValueError("tls_key_file and tls_client_ca_file need tls_cert_file")
        return self
