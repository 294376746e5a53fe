"""Options that the terminal's desk commands share, and the question before anything is changed."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from monitor.config.sources import parse_yaml, read_yaml
from monitor.core.errors import UsageError

JsonOption = Annotated[bool, typer.Option("--json", metavar="", help="JSON for programs.")]
WhyOption = Annotated[
    str | None,
    typer.Option("--why", metavar="TEXT", help="The reason; it stands in the audit trail."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", metavar="", help="Do not ask.")]
DryOption = Annotated[
    bool, typer.Option("--dry-run", metavar="", help="Only say what would be done.")
]
FileOption = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The whole document in YAML.")
]
UnsetOption = Annotated[
    list[str] | None,
    typer.Option("--unset", metavar="KEY", help="Take a key out, back to its default; repeatable."),
]


def reason(why: str | None) -> str:
    """The reason, asked for where somebody can answer. Raises UsageError."""
    if why is None and sys.stdin.isatty():
        why = typer.prompt("Why", err=True)
    if why is None or not why.strip():
        raise UsageError("--why: say why; it stands in the history and the audit trail")
    return why.strip()


def agreed(question: str, yes: bool, *, has_dry_run: bool = True) -> None:
    """Go on only if whoever is asked agrees. Raises UsageError where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        look = ", or --dry-run to look first" if has_dry_run else ""
        raise UsageError(f"nobody is there to ask: say --yes{look}")
    typer.confirm(question, abort=True, err=True)


def document(
    present: Mapping[str, Any],
    changes: Sequence[str],
    unset: Sequence[str] | None,
    file: Path | None,
) -> dict[str, Any]:
    """The document that is meant: ``file`` or the present one, with ``changes`` made.

    Parameters
    ----------
    present
        The document that holds now.
    changes
        ``key=value`` with a dotted key; the value is read as YAML.
    unset
        Dotted keys to take out.
    file
        YAML of a whole document, alone or under the key ``policy``.

    Raises
    ------
    UsageError
        For what cannot be read, or when nothing is asked for.
    """
    if not changes and not unset and file is None:
        raise UsageError("say what to change: key=value, --unset KEY or --file FILE")
    made = copy.deepcopy(dict(present))
    if file is not None:
        made = read_yaml(file)
        if set(made) == {"policy"} and isinstance(made["policy"], dict):
            made = made["policy"]
    for text in changes:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise UsageError(f"{text!r}: write key=value, such as flag_at=0.02")
        _put(made, key.strip(), _value(key, value))
    for key in unset or ():
        _take(made, key)
    return made


def _value(key: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{key}: {text!r} is not valid YAML") from error


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    here = values
    for section in sections:
        below = here.setdefault(section, {})
        if not isinstance(below, dict):
            raise UsageError(f"{key}: {section} is no section; give it as a whole")
        here = below
    here[name] = value


def _take(values: dict[str, Any], key: str) -> None:
    *sections, name = key.split(".")
    here: Any = values
    for section in sections:
        here = here.get(section) if isinstance(here, dict) else None
    if not isinstance(here, dict) or name not in here:
        raise UsageError(f"--unset: the document has no {key}")
    del here[name]
