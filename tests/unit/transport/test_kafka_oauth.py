"""Tokens by client credentials, from a scripted provider (tests/kafka has one that answers)."""

from __future__ import annotations

import httpx
import pytest

from monitor.transport import kafka_oauth
from monitor.transport.kafka_oauth import TokenError, TokenSource, fetch_token
from monitor.transport.kafka_security import OAuth, Secret

OAUTH = OAuth("https://idp.example/token", "me", Secret("hunter2"), scope="kafka")


@pytest.fixture
def provider(monkeypatch):
    """Answers what is put into the list, the last for ever; notes what it was asked."""
    answers, asked = [], []

    def post(url, **request):
        asked.append((url, request))
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(kafka_oauth.httpx, "post", post)
    return answers, asked


def test_it_asks_by_the_client_credentials_grant(provider):
    answers, asked = provider
    answers.append(httpx.Response(200, json={"access_token": "t", "expires_in": 60}))
    assert fetch_token(OAUTH) == ("t", 60.0)
    ((url, request),) = asked
    assert url == OAUTH.token_url and request["auth"] == ("me", "hunter2")
    assert request["data"] == {"grant_type": "client_credentials", "scope": "kafka"}


def test_a_token_is_kept_until_four_fifths_of_its_life_are_over(provider):
    answers, asked = provider
    answers += [
        httpx.Response(200, json={"access_token": f"t{i}", "expires_in": 100}) for i in "123"
    ]
    now = [1000.0]
    source = TokenSource(OAUTH, clock=lambda: now[0])
    assert [source.token(), source.token()] == ["t1", "t1"]
    now[0] += 79.0
    assert source.token() == "t1"
    now[0] += 2.0
    assert source.token() == "t2" and len(asked) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(401, json={"error": "invalid_client"}), "answers 401 (invalid_client)"),
        (httpx.Response(502, text="<html>"), "answers 502"),
        (httpx.Response(200, json={"token": "t"}), "without an access_token"),
        (httpx.Response(200, json=["t"]), "without an access_token"),
        (httpx.Response(200, json={"access_token": "a\x01b"}), "without an access_token"),
        (httpx.Response(200, text="nothing"), "without an access_token"),
        (httpx.ConnectError("refused"), "ConnectError: refused"),
    ],
)
def test_what_went_wrong_is_said_and_nothing_is_kept(provider, answer, said):
    answers, _ = provider
    answers += [answer, httpx.Response(200, json={"access_token": "later"})]
    source = TokenSource(OAUTH)
    with pytest.raises(TokenError) as caught:
        source.token()
    assert said in str(caught.value) and OAUTH.token_url in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert source.token() == "later"
