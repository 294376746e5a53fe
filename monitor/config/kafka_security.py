"""The section ``kafka.security`` of the settings: TLS, logins and client certificates."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from monitor.config.base import FileName, Section

Secret = Annotated[SecretStr, Field(min_length=1)]

PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class OAuthSettings(Section):
    """Client credentials at an OpenID provider, for `mechanism: OAUTHBEARER`."""

    token_url: str = Field(
        default="",
        description="Token endpoint of the provider, https://… (http only on this machine).",
    )
    client_id: str = Field(default="", description="Name of this client at the provider.")
    client_secret: Secret | None = Field(
        default=None,
        description="Its secret. Give it in the environment "
        "(MONITOR_KAFKA__SECURITY__OAUTH__CLIENT_SECRET) or in client_secret_file.",
    )
    client_secret_file: FileName | None = Field(
        default=None, description="File that holds the secret and nothing else."
    )
    scope: str = Field(default="", description="Scope to ask for; empty for the provider's own.")
    ca_file: FileName | None = Field(
        default=None,
        description="Certificate authorities of the token endpoint, PEM. null: this machine's.",
    )
    extensions: dict[str, str] = Field(
        default_factory=dict,
        description="SASL extensions that the brokers want with the token, name: value.",
    )


class KafkaSecuritySettings(Section):
    """How the connections to the brokers are protected, and as whom this service logs in."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="The listener's security protocol, in Kafka's words. SSL: TLS. SASL_SSL: TLS "
        "and a login. SASL_PLAINTEXT: a login without TLS. PLAINTEXT: neither.",
    )
    mechanism: (
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI"] | None
    ) = Field(
        default=None,
        description="How to log in, for SASL_SSL and SASL_PLAINTEXT: PLAIN, SCRAM-SHA-256 or "
        "SCRAM-SHA-512 with username and password, OAUTHBEARER with `oauth` below, or GSSAPI "
        "(Kerberos, with kafka.options).",
    )
    username: str = Field(default="", description="User name, for PLAIN and SCRAM.")
    password: Secret | None = Field(
        default=None,
        description="Password. Give it in the environment (MONITOR_KAFKA__SECURITY__PASSWORD) or "
        "in password_file, not here.",
    )
    password_file: FileName | None = Field(
        default=None,
        description="File that holds the password and nothing else, such as a mounted secret. "
        "Read at start.",
    )
    ca_file: FileName | None = Field(
        default=None,
        description="Certificate authorities the brokers' certificates must come from, PEM. null: "
        "this machine's.",
    )
    check_hostname: bool = Field(
        default=True,
        description="Whether a broker's certificate must name the host that was asked for.",
    )
    certificate_file: FileName | None = Field(
        default=None,
        description="Certificate of this client with its chain, PEM, where the brokers ask for "
        "one.",
    )
    key_file: FileName | None = Field(
        default=None, description="Its private key, PEM; null when it stands in certificate_file."
    )
    key_password: Secret | None = Field(
        default=None,
        description="Password of the key (MONITOR_KAFKA__SECURITY__KEY_PASSWORD); null when it has "
        "none.",
    )
    key_password_file: FileName | None = Field(
        default=None, description="File that holds the password of the key and nothing else."
    )
    oauth: OAuthSettings = Field(
        default_factory=OAuthSettings,
        description="Client credentials at an OpenID provider, for OAUTHBEARER.",
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        for problem in (self._login_problem(), self._oauth_problem(), self._tls_problem()):
            if problem is not None:
                raise ValueError(problem)
        return self

    def _login_problem(self) -> str | None:
        if not self.protocol.startswith("SASL_"):
            if self.mechanism or self.username or self.password or self.password_file:
                return "mechanism, username and password need protocol SASL_SSL (or SASL_PLAINTEXT)"
            return None
        if self.mechanism is None:
            return f"protocol {self.protocol} needs a mechanism"
        with_password = self.mechanism in PASSWORD_MECHANISMS
        if with_password and not (self.username and (self.password or self.password_file)):
            return f"mechanism {self.mechanism} needs username, and password or password_file"
        if not with_password and (self.username or self.password or self.password_file):
            return f"username and password are not for mechanism {self.mechanism}"
        return "give password or password_file, not both" if _both(self, "password") else None

    def _oauth_problem(self) -> str | None:
        oauth = self.oauth
        if self.mechanism != "OAUTHBEARER":
            used = oauth != OAuthSettings()
            return "oauth needs mechanism OAUTHBEARER" if used else None
        secret = oauth.client_secret or oauth.client_secret_file
        if not (oauth.token_url and oauth.client_id and secret):
            return (
                "mechanism OAUTHBEARER needs oauth.token_url, oauth.client_id, and "
                "oauth.client_secret or oauth.client_secret_file"
            )
        if _both(oauth, "client_secret"):
            return "give oauth.client_secret or oauth.client_secret_file, not both"
        try:
            url = urlsplit(oauth.token_url)
            secure = url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOOPBACK)
        except ValueError:
            secure = False
        return None if secure else "oauth.token_url must begin with https://"

    def _tls_problem(self) -> str | None:
        key = self.key_file or self.key_password or self.key_password_file
        if not self.protocol.endswith("SSL") and (self.ca_file or self.certificate_file or key):
            return "ca_file, certificate_file and key_file need protocol SSL or SASL_SSL"
        if key and not self.certificate_file:
            return "key_file and key_password need certificate_file"
        return (
            "give key_password or key_password_file, not both"
            if _both(self, "key_password")
            else None
        )


def _both(section: Section, name: str) -> bool:
    return bool(getattr(section, name) and getattr(section, f"{name}_file"))
