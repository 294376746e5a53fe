"""Why no broker could be talked to, looked into after it has failed, the same for all clients.

The clients retry what cannot get better, and at their deadline know only that time is over.
"""

from __future__ import annotations

import socket
import ssl
import struct

from monitor.core.errors import MonitorError
from monitor.transport.kafka_config import KafkaConfig
from monitor.transport.kafka_oauth import TokenError, fetch_token
from monitor.transport.kafka_security import Security, tls_context

_SECONDS = 3.0
_NO_TLS = ("WRONG_VERSION", "UNKNOWN_PROTOCOL", "RECORD_LAYER", "UNEXPECTED_EOF")
_TLS_RECORDS = (0x15, 0x16)
# ApiVersions, version 0, which brokers answer before any login.
_BODY = struct.pack(">hhih", 18, 0, 1, -1)
_QUESTION = struct.pack(">i", len(_BODY)) + _BODY


def why_unreachable(config: KafkaConfig) -> str | None:
    """A sentence on what to change, None when nothing is found but that nobody answers."""
    security = config.security
    if security.oauth is not None:
        try:
            fetch_token(security.oauth)
        except TokenError as error:
            return f"no token for OAUTHBEARER, {error}; check kafka.security.oauth"
    for address in config.bootstrap_servers.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit():
            continue
        try:
            found = _ask(host.strip("[]"), int(port), security)
        except (MonitorError, OSError):
            continue
        return f"{address.strip()}: {found}"
    return None


def _ask(host: str, port: int, security: Security) -> str:
    with socket.create_connection((host, port), timeout=_SECONDS) as plain:
        if not security.uses_tls:
            plain.sendall(_QUESTION)
            first = _first_byte(plain)
            if first is None or first in _TLS_RECORDS:
                return (
                    "this listener closes an unencrypted connection, so it probably wants TLS: set "
                    "kafka.security.protocol to SSL or SASL_SSL"
                )
            return _after_the_question(security)
        try:
            with tls_context(security).wrap_socket(plain, server_hostname=host) as secure:
                # Under TLS 1.3 the word on our certificate comes with the first answer.
                secure.sendall(_QUESTION)
                if _first_byte(secure) is None:
                    return "this listener closes the connection after the TLS handshake"
        except ssl.SSLCertVerificationError as error:
            return _untrusted(error, security)
        except ssl.SSLError as error:
            return _no_handshake(error, security)
    return _after_the_question(security)


def _after_the_question(security: Security) -> str:
    """It answers who has not logged in; what comes next has failed."""
    if security.mechanism is None:
        return (
            "a broker answers, but lets this client in no further: if its listener wants a login, "
            "set kafka.security.protocol to SASL_SSL or SASL_PLAINTEXT"
        )
    return f"a broker answers, but there is no login for {security.login}; check kafka.security"


def _first_byte(connection: socket.socket) -> int | None:
    try:
        got = connection.recv(1)
    except ConnectionError:
        return None
    return got[0] if got else None


def _untrusted(error: ssl.SSLCertVerificationError, security: Security) -> str:
    why = error.verify_message
    if "ostname" in why or "IP address" in why:
        return (
            f"the broker's certificate is for another host ({why}); use the name in "
            "kafka.bootstrap_servers that the certificate has"
        )
    trusted = f"{security.ca_file}" if security.ca_file else "this machine's authorities"
    return (
        f"the broker's certificate is not trusted ({why}) by {trusted}; set "
        "kafka.security.ca_file to the authority that signed it"
    )


def _no_handshake(error: ssl.SSLError, security: Security) -> str:
    why = error.reason or str(error)
    if "ALERT" in why:
        has = "refuses that in" if security.certificate_file else "wants one: set"
        return f"client certificate: the broker {has} kafka.security.certificate_file ({why})"
    if any(word in why for word in _NO_TLS):
        return (
            f"this listener does not speak TLS ({why}): set kafka.security.protocol to PLAINTEXT "
            "or SASL_PLAINTEXT, or name the listener that does"
        )
    return f"the TLS handshake fails ({why})"
