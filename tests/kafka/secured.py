"""A broker with TLS, logins and access rules, and the provider that issues tokens for it."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.checks.certificates import Authority
from tests.kafka.kafka_helpers import broker_module

USER = "monitor"
PASSWORD = "p4ss=word%s; #1"  # nothing that a client may take for syntax
TLS_PASSWORD = "keyword-of-the-key"
CLIENT_SECRET = "s3cret/of+the client"
_OAUTH = "org.apache.kafka.common.security.oauthbearer"
_MECHANISMS = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Provider:
    """An OpenID provider's token endpoint for client credentials, and its key set."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.keys = folder / "keys.json"
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256"}
        for name, value in (("n", numbers.n), ("e", numbers.e)):
            key[name] = _encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))
        self.keys.write_text(json.dumps({"keys": [key]}))
        self.issued: list[dict[str, str]] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                status, answer = provider.answer(self.headers.get("Authorization", ""), form)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, authorization: str, form: dict[str, str]) -> tuple[int, dict[str, object]]:
        credentials = base64.b64decode(authorization.partition(" ")[2]).decode()
        if credentials != f"{USER}:{CLIENT_SECRET}":
            return 401, {"error": "invalid_client"}
        self.issued.append(form)
        return 200, {"access_token": self._token(), "expires_in": 300, "token_type": "Bearer"}

    def _token(self) -> str:
        now = int(time.time())
        claims = {"iss": "tests", "sub": USER, "aud": "kafka", "iat": now, "exp": now + 300}
        parts = [{"alg": "RS256", "kid": "one"}, claims]
        text = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_encoded(signature)}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class SecuredBroker:
    """A broker with an open listener for its administrator (``address``), and others.

    ``login`` is SASL_SSL with every mechanism, ``certificates`` is SSL for clients with one.
    """

    def __init__(self, folder: Path) -> None:
        module = broker_module()
        self.authority = Authority(folder, "authority")
        self.stranger = Authority(folder, "stranger")
        self.provider = Provider(folder)
        store = folder / "broker.pem"
        cert, key = (Path(name).read_text() for name in self.authority.issue("broker"))
        store.write_text(key + cert)
        self.certificate, self.key = self.authority.issue(USER, TLS_PASSWORD.encode())
        ports = [module.free_port() for _ in range(2)]
        self.login, self.certificates = (f"127.0.0.1:{port}" for port in ports)
        scram = [
            f"{mechanism}=[name={USER},password={PASSWORD}]"
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        ]
        extras = module.Extras(
            self._properties(store, *ports),
            jvm=(
                f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.provider.keys.as_uri()}",
            ),
            storage=tuple(part for one in scram for part in ("--add-scram", one)),
        )
        self._broker = module.Broker(folder / "kafka", extras=extras)

    @property
    def address(self) -> str:
        return self._broker.address

    def _properties(self, store: Path, login: int, certificates: int) -> dict[str, str]:
        own = "PLAINTEXT://127.0.0.1:{port}"
        secured = f"SASL_SSL://127.0.0.1:{login},SSL://127.0.0.1:{certificates}"
        sasl = "listener.name.sasl_ssl"
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return {
            "listeners": f"{own},{secured},CONTROLLER://127.0.0.1:{{controller_port}}",
            "advertised.listeners": f"{own},{secured}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
            "SASL_SSL:SASL_SSL,SSL:SSL",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.authority.file,
            "listener.name.ssl.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^CN=(.*)$/$1/",
            "sasl.enabled.mechanisms": _MECHANISMS,
            f"{sasl}.plain.sasl.jaas.config": f'{plain} user_{USER}="{PASSWORD}";',
            f"{sasl}.scram-sha-256.sasl.jaas.config": scram,
            f"{sasl}.scram-sha-512.sasl.jaas.config": scram,
            f"{sasl}.oauthbearer.sasl.jaas.config": f"{_OAUTH}.OAuthBearerLoginModule required;",
            f"{sasl}.oauthbearer.sasl.server.callback.handler.class": (
                f"{_OAUTH}.OAuthBearerValidatorCallbackHandler"
            ),
            f"{sasl}.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": self.provider.keys.as_uri(),
            f"{sasl}.oauthbearer.sasl.oauthbearer.expected.audience": "kafka",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    def start(self) -> None:
        self._broker.start()

    def stop(self) -> None:
        self._broker.stop()
        self.provider.close()

    def log_tail(self) -> str:
        return self._broker.log_tail(60)
