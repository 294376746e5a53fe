"""The section ``kafka.security``: what goes together, and that secrets do not show."""

from __future__ import annotations

import json

import pytest

from monitor.cli.wiring import kafka_config
from monitor.config.settings import as_dict, keys, load_settings
from monitor.core.errors import UsageError

SECRET = "hunter2-and-more"
SCRAM = {
    "MONITOR_KAFKA__SECURITY__PROTOCOL": "SASL_SSL",
    "MONITOR_KAFKA__SECURITY__MECHANISM": "SCRAM-SHA-512",
    "MONITOR_KAFKA__SECURITY__USERNAME": "me",
}
OAUTH = """
kafka:
  security:
    protocol: SASL_SSL
    mechanism: OAUTHBEARER
    oauth: {token_url: "https://idp.example/token", client_id: me, client_secret: %s}
"""


def load(tmp_path, text="", environ=None):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return load_settings(path, environ=environ or {})


@pytest.mark.parametrize("password", [SECRET, "123", "null", "true", "a: [b", " "])
def test_a_password_in_the_environment_is_the_text_as_it_stands(tmp_path, password):
    environ = SCRAM | {"MONITOR_KAFKA__SECURITY__PASSWORD": password}
    config = kafka_config(load(tmp_path, environ=environ))
    assert config.security.password == password
    assert config.security.mechanism == "SCRAM-SHA-512"


def test_secrets_are_in_no_printed_form_of_settings(tmp_path):
    environ = SCRAM | {"MONITOR_KAFKA__SECURITY__PASSWORD": SECRET}
    for settings in (load(tmp_path, environ=environ), load(tmp_path, OAUTH % SECRET)):
        shown = [repr(settings), json.dumps(as_dict(settings)), repr(keys(settings))]
        shown += [repr(kafka_config(settings)), str(kafka_config(settings).security)]
        assert not any(SECRET in text for text in shown)
        assert "SASL_SSL" in shown[0] and "SASL_SSL" in shown[-1]


def test_secrets_come_from_files_without_their_line_end(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    environ = SCRAM | {"MONITOR_KAFKA__SECURITY__PASSWORD_FILE": str(secret)}
    assert kafka_config(load(tmp_path, environ=environ)).security.password == SECRET
    secret.write_text("\n")
    with pytest.raises(UsageError, match=r"password_file: .*secret is empty"):
        kafka_config(load(tmp_path, environ=environ))
    secret.unlink()
    with pytest.raises(UsageError, match=r"kafka\.security\.password_file: .*No such file"):
        kafka_config(load(tmp_path, environ=environ))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{protocol: SASL_SSL}", "needs a mechanism"),
        ("{mechanism: PLAIN}", "need protocol SASL_SSL"),
        ("{username: me}", "need protocol SASL_SSL"),
        ("{protocol: SASL_SSL, mechanism: PLAIN, username: me}", "password or password_file"),
        ("{protocol: SASL_SSL, mechanism: PLAIN, password: hunter2-and-more}", "needs username"),
        ("{protocol: SASL_SSL, mechanism: OAUTHBEARER}", "needs oauth.token_url"),
        ("{protocol: SASL_SSL, mechanism: GSSAPI, username: me}", "not for mechanism GSSAPI"),
        ("{oauth: {client_secret: hunter2-and-more}}", "oauth needs mechanism OAUTHBEARER"),
        ("{ca_file: ca.pem}", "need protocol SSL or SASL_SSL"),
        ("{protocol: SSL, key_password: hunter2-and-more}", "need certificate_file"),
        ("{password: [hunter2-and-more]}", "kafka.security.password: must be a valid string"),
        ("{password: 12345678}", "kafka.security.password: must be a valid string"),
        ("{pasword: hunter2-and-more}", "did you mean 'password'?"),
        ("{protocol: sasl_ssl}", "'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'"),
        (
            "{protocol: SASL_SSL, mechanism: PLAIN, username: me, password: hunter2-and-more, "
            "password_file: x}",
            "not both",
        ),
        (
            "{protocol: SASL_SSL, mechanism: OAUTHBEARER, oauth: {token_url: 'http://idp/t', "
            "client_id: me, client_secret: hunter2-and-more}}",
            "must begin with https://",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_without_showing_it(tmp_path, text, said):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, f"kafka: {{security: {text}}}")
    message = str(caught.value)
    assert said in message and "kafka.security" in message and "\n" not in message
    assert SECRET not in message and "12345678" not in message


@pytest.mark.parametrize("setting", ["ca_file", "certificate_file"])
def test_a_file_that_is_no_certificate_is_named(tmp_path, setting):
    odd = tmp_path / "odd.pem"
    odd.write_text("not a certificate")
    settings = load(tmp_path, f"kafka: {{security: {{protocol: SSL, {setting}: '{odd}'}}}}")
    with pytest.raises(UsageError, match=rf"kafka\.security\.{setting}.*odd\.pem: does not hold"):
        kafka_config(settings)
