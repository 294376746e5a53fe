"""How connections to Kafka are protected and who logs in, in the words of both clients."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monitor.config.kafka_security import PASSWORD_MECHANISMS
from monitor.core.errors import UsageError


class Secret(str):
    """A text that shows itself only to whom it is handed, not where it is printed with others.

    kafka-python writes the options of a client into its debug log.

    Examples
    --------
    >>> {"password": Secret("hunter2")}
    {'password': '***'}
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class OAuth:
    """Client credentials at an OpenID provider, and what goes to the brokers beside the token."""

    token_url: str
    client_id: str
    client_secret: Secret
    scope: str = ""
    ca_file: str | None = None
    extensions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Security:
    """TLS, login and client certificate of every connection.

    Attributes
    ----------
    protocol, mechanism
        In Kafka's words; a mechanism goes with ``SASL_SSL`` and ``SASL_PLAINTEXT``.
    username, password
        For ``PLAIN`` and ``SCRAM-…``.
    ca_file, certificate_file, key_file, key_password
        PEM files. None for the machine's own authorities, for no client certificate, for a key
        that stands in the file of the certificate.
    check_hostname
        Whether a broker's certificate must name the host that was asked for.
    oauth
        For ``OAUTHBEARER``.
    """

    protocol: str = "PLAINTEXT"
    mechanism: str | None = None
    username: str = ""
    password: Secret = field(default=Secret(""))
    ca_file: str | None = None
    check_hostname: bool = True
    certificate_file: str | None = None
    key_file: str | None = None
    key_password: Secret = field(default=Secret(""))
    oauth: OAuth | None = None

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def login(self) -> str:
        """Who logs in and how, for messages."""
        if self.mechanism in PASSWORD_MECHANISMS:
            return f"user {self.username!r} by {self.mechanism}"
        if self.oauth is not None:
            return f"client {self.oauth.client_id!r} by {self.mechanism}"
        return (
            f"login by {self.mechanism}" if self.mechanism else "nobody, since none is configured"
        )


def read_secret(setting: str, path: str) -> Secret:
    """What a file holds, without the line end that editors add.

    Raises
    ------
    UsageError
        When it cannot be read or is empty. Never tells what is in it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise UsageError(f"{setting}: {path}: {why}") from None
    found = text.removesuffix("\n").removesuffix("\r")
    if not found:
        raise UsageError(f"{setting}: {path} is empty")
    return Secret(found)


def security_of(values: Mapping[str, Any]) -> Security:
    """The transport's form of the section ``kafka.security``, with the secrets of files read.

    Parameters
    ----------
    values
        The section by field name; secrets have ``get_secret_value``.

    Raises
    ------
    UsageError
        When a file cannot be read, or does not hold what it should.
    """
    given, oauth = dict(values), dict(values["oauth"])
    password = _secret(given, "password", "kafka.security")
    key_password = _secret(given, "key_password", "kafka.security")
    client_secret = _secret(oauth, "client_secret", "kafka.security.oauth")
    oauth["extensions"] = tuple(oauth["extensions"].items())
    found = Security(
        **given
        | {
            "password": password,
            "key_password": key_password,
            "oauth": OAuth(**oauth, client_secret=client_secret) if client_secret else None,
        }
    )
    if found.uses_tls:
        tls_context(found)
    return found


def _secret(values: dict[str, Any], name: str, section: str) -> Secret:
    """Take a secret and the name of its file out of ``values``."""
    given, path = values.pop(name), values.pop(f"{name}_file")
    if path is not None:
        return read_secret(f"{section}.{name}_file", path)
    return Secret("" if given is None else given.get_secret_value())


def tls_context(security: Security) -> ssl.SSLContext:
    """TLS as these settings want it.

    Raises
    ------
    UsageError
        In one line: which file cannot be used and why.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = security.check_hostname
    if security.ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(security.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"kafka.security.ca_file: {security.ca_file}: {_why(error, 'certificates')}"
            ) from error
    if security.certificate_file is not None:
        try:
            # Never asks at the terminal: an empty password fails like a wrong one.
            context.load_cert_chain(
                security.certificate_file, security.key_file, lambda: str(security.key_password)
            )
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(filter(None, (security.certificate_file, security.key_file)))
            raise UsageError(
                f"kafka.security.certificate_file, key_file, key_password: {files}: "
                f"{_why(error, 'a certificate and its key, or the key has another password')}"
            ) from error
    return context


def _why(error: OSError, expected: str) -> str:
    if isinstance(error, ssl.SSLError):
        return f"does not hold {expected} in PEM form ({error.reason or error})"
    return error.strerror or str(error)


def python_options(security: Security) -> dict[str, Any]:
    """For kafka-python, but for the token provider."""
    options: dict[str, Any] = {"security_protocol": security.protocol}
    if security.uses_tls:
        options["ssl_context"] = tls_context(security)
    if security.mechanism is not None:
        options["sasl_mechanism"] = security.mechanism
    if security.mechanism in PASSWORD_MECHANISMS:
        options["sasl_plain_username"] = security.username
        options["sasl_plain_password"] = security.password
    return options


def librdkafka_options(security: Security) -> dict[str, Any]:
    """For librdkafka.

    Examples
    --------
    >>> librdkafka_options(Security("SSL", check_hostname=False))
    {'security.protocol': 'SSL', 'ssl.endpoint.identification.algorithm': 'none'}
    """
    options: dict[str, Any] = {"security.protocol": security.protocol}
    if security.uses_tls:
        options["ssl.endpoint.identification.algorithm"] = (
            "https" if security.check_hostname else "none"
        )
        options |= {
            "ssl.ca.location": security.ca_file,
            "ssl.certificate.location": security.certificate_file,
            "ssl.key.location": security.key_file or security.certificate_file,
            "ssl.key.password": security.key_password,
        }
    options["sasl.mechanism"] = security.mechanism
    if security.mechanism in PASSWORD_MECHANISMS:
        options |= {"sasl.username": security.username, "sasl.password": security.password}
    if security.oauth is not None:
        oauth = security.oauth
        options |= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": oauth.token_url,
            "sasl.oauthbearer.client.id": oauth.client_id,
            "sasl.oauthbearer.client.secret": oauth.client_secret,
            "sasl.oauthbearer.scope": oauth.scope,
            "sasl.oauthbearer.extensions": ",".join(f"{k}={v}" for k, v in oauth.extensions),
            "https.ca.location": oauth.ca_file,
        }
    return {name: value for name, value in options.items() if value}
