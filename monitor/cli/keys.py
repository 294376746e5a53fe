"""``keys``: who may sign events, and signing itself, from a terminal."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from monitor.cli import common
from monitor.cli.client import (
    DEFAULT_URL,
    Access,
    CaOption,
    CertOption,
    Client,
    TokenOption,
    UrlOption,
)
from monitor.cli.desk_options import JsonOption, WhyOption, YesOption, agreed, reason
from monitor.cli.desk_view import counted, plain, print_json, table, when
from monitor.cli.key_files import new_key, read_entry, read_signer, sign_lines
from monitor.core.errors import UsageError

EPILOG = """\
**Examples**

`poisoning-monitor keys new shop-2026-05 --out shop.key > shop.json`

`poisoning-monitor keys add --file shop.json --source "shop-*" --why "The shop signs from May on"`

`poisoning-monitor keys revoke shop-2026-05 --why "The laptop it was on is lost"`

Whether a source has to sign is policy: policy set 'provenance.rules=[{sources: "shop-*",
signature: required}]'. Changes need a token of the role admin.
"""

app = typer.Typer(
    help="Keys that may sign events, and for which sources.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="What the header key-id says.")]
AlgorithmOption = Annotated[
    str, typer.Option("--algorithm", metavar="WORD", help="ed25519 or hmac-sha256.")
]
SecretOption = Annotated[
    str | None,
    typer.Option("--secret", metavar="NAME", help="hmac-sha256: the secret's name, never itself."),
]
PublicOption = Annotated[
    str | None, typer.Option("--public-key", metavar="BASE64", help="ed25519: 32 bytes in base64.")
]
EntryOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="What `keys new` printed; - for stdin."),
]
SourceOption = Annotated[
    list[str] | None,
    typer.Option("--source", metavar="PATTERN", help="May speak for these; repeatable; * for any."),
]
FromOption = Annotated[
    str | None, typer.Option("--valid-from", metavar="TIME", help="Unix seconds or RFC 3339.")
]
UntilOption = Annotated[
    str | None, typer.Option("--valid-until", metavar="TIME", help="Unix seconds or RFC 3339.")
]


@app.command("new", epilog=EPILOG)
def new(
    *,
    identifier: IdArgument,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Gets the private key; must not be there.")
    ],
    algorithm: AlgorithmOption = "ed25519",
    secret: SecretOption = None,
    source: SourceOption = None,
    debug: common.DebugOption = False,
) -> None:
    """Make a key: the private part into a file, what the registry has to know on standard output.

    For hmac-sha256 the file holds the secret in base64; every replica needs a copy of it under the
    secret's name.
    """
    entry = new_key(identifier, algorithm, out, secret)
    print_json(entry | ({"sources": source} if source else {}))
    typer.echo(f"{out} holds the private key: keep it where the producer is, only there", err=True)


@app.command("list")
def list_(
    *,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """List the keys and the rules for sources of the policy that holds now."""
    with Client(Access(url, token, ca_file, client_cert)) as client:
        found = client.get("/v1/keys")
    if as_json:
        print_json(found)
        return
    out = common.console()
    made = table(
        f"{counted(len(found['keys']), 'key')}, policy version {found['version']}",
        *("id", "algorithm", "state", "sources", "from", "until", "revoked", "why"),
    )
    for key in found["keys"]:
        times = [
            "" if key[name] is None else when(key[name])
            for name in ("valid_from", "valid_until", "revoked_at")
        ]
        made.add_row(
            *map(plain, (key["id"], key["algorithm"], key["state"], ", ".join(key["sources"]))),
            *times,
            plain(key["why"]),
        )
    out.print(made)
    rules = table("", "sources", "signature", "why")
    for rule in found["rules"]:
        rules.add_row(plain(rule["sources"]), plain(rule["signature"]), plain(rule["why"]))
    rules.add_row("all others", plain(found["default"]), "")
    out.print(rules)


@app.command("add", epilog=EPILOG)
def add(
    *,
    identifier: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="What the header key-id says.")
    ] = None,
    file: EntryOption = None,
    algorithm: AlgorithmOption = "ed25519",
    public_key: PublicOption = None,
    secret: SecretOption = None,
    source: SourceOption = None,
    valid_from: FromOption = None,
    valid_until: UntilOption = None,
    why: WhyOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Add a key to the registry, on every replica."""
    given = (identifier, algorithm, public_key, secret)
    key = _entry(file, given, source, (valid_from, valid_until))
    _send(Access(url, token, ca_file, client_cert), "/v1/keys", {"key": key}, why, as_json)


@app.command("revoke", epilog=EPILOG)
def revoke(
    *,
    identifier: IdArgument,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="TIME", help="Events from before this stay good."),
    ] = None,
    why: WhyOption = None,
    yes: YesOption = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Refuse all that a key signs from now on, for good, whatever time its events claim."""
    body = {} if after is None else {"after_ts": _moment("--after", after)}
    because = reason(why)
    agreed(f"Revoke {identifier} for good?", yes, has_dry_run=False)
    path = f"/v1/keys/{_quoted(identifier)}/revoke"
    _send(Access(url, token, ca_file, client_cert), path, body, because, as_json)


@app.command("rotate", epilog=EPILOG)
def rotate(
    *,
    old: Annotated[str, typer.Argument(metavar="OLD", help="The key to be replaced.")],
    identifier: Annotated[
        str | None, typer.Argument(metavar="[NEW]", help="The new key's id.")
    ] = None,
    file: EntryOption = None,
    algorithm: AlgorithmOption = "ed25519",
    public_key: PublicOption = None,
    secret: SecretOption = None,
    source: SourceOption = None,
    overlap_hours: Annotated[
        float, typer.Option("--overlap-hours", min=0.0, help="How long the old one stays good.")
    ] = 24.0,
    why: WhyOption = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaOption = None,
    client_cert: CertOption = None,
    as_json: JsonOption = False,
    debug: common.DebugOption = False,
) -> None:
    """Add a new key beside an old one, which ends a while later; by default for its sources."""
    common.finite("--overlap-hours", overlap_hours, "from 0 to 8784")
    key = _entry(file, (identifier, algorithm, public_key, secret), source, (None, None))
    body = {"key": key, "overlap_seconds": overlap_hours * 3600.0}
    path = f"/v1/keys/{_quoted(old)}/rotate"
    _send(Access(url, token, ca_file, client_cert), path, body, why, as_json)


@app.command("sign")
def sign(
    *,
    input_: Annotated[str, typer.Argument(metavar="[FILE]", help="JSONL; - for stdin.")] = "-",
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="As `keys new` made it.")],
    identifier: Annotated[str, typer.Option("--key-id", metavar="ID", help="The key's id.")],
    signed_at: Annotated[
        str | None,
        typer.Option("--signed-at", metavar="TIME", help="Sign this time along; `now` for now."),
    ] = None,
    values: Annotated[
        bool, typer.Option("--values", metavar="", help="Print each line along, as `value`.")
    ] = False,
    debug: common.DebugOption = False,
) -> None:
    """Print the headers that go with each line of a JSONL file, one JSON object a line.

    The signature is over the line's bytes without the line feed, so a producer has to send exactly
    these.
    """
    at = None
    if signed_at is not None:
        at = time.time() if signed_at == "now" else _moment("--signed-at", signed_at)
    made = read_signer(key)
    stream = sys.stdin.buffer
    if input_ != "-":
        try:
            stream = Path(input_).open("rb")  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"{input_}: cannot be read: {error.strerror}") from error
    with stream:
        for text in sign_lines(stream, made, identifier, at, values=values):
            typer.echo(text)


def _entry(
    file: Path | None,
    given: tuple[str | None, str, str | None, str | None],
    sources: list[str] | None,
    times: tuple[str | None, str | None],
) -> dict[str, Any]:
    """A key as the registry wants it, from a file or from options. Raises UsageError."""
    identifier, algorithm, public_key, secret = given
    if file is not None:
        if public_key is not None or secret is not None:
            raise UsageError("--file says all about the key; leave the other options out")
        key = read_entry(file)
        if identifier is not None:
            key["id"] = identifier
    elif identifier is None:
        raise UsageError("say which key: ID and --public-key or --secret, or --file FILE")
    else:
        key = {"id": identifier, "algorithm": algorithm if secret is None else "hmac-sha256"}
        key |= {"public_key": public_key} if secret is None else {"secret": secret}
    if sources:
        key["sources"] = sources
    for name, text in zip(("valid_from", "valid_until"), times, strict=True):
        if text is not None:
            key[name] = _moment(f"--{name.replace('_', '-')}", text)
    return key


def _send(access: Access, path: str, body: dict[str, Any], why: str | None, as_json: bool) -> None:
    because = reason(why)
    with Client(access) as client:
        present = client.get("/v1/keys")["version"]
        made = client.change("POST", path, {**body, "why": because}, present)
    if as_json:
        print_json(made)
        return
    words = {
        "applied": f"policy version {made['version']} holds now",
        "unchanged": "the key is revoked like that already; "
        f"policy version {made['version']} still holds",
        "waiting": f"waits for a second person: policy approve {made['proposal']}",
    }
    common.console().print(plain(words.get(made["state"], made["state"])))


def _moment(option: str, text: str) -> float:
    from monitor.admin.desk_schemas import moment  # noqa: PLC0415 - slow to import

    try:
        return float(moment(text))
    except ValueError as error:
        raise UsageError(f"{option}: {text!r} {error}") from error


def _quoted(identifier: str) -> str:
    from urllib.parse import quote  # noqa: PLC0415

    return quote(identifier, safe="")
