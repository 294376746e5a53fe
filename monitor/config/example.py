"""The documented example configuration, generated from the settings themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import orjson
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from monitor.config.settings import Settings, as_dict
from monitor.config.sources import section_of

WIDTH = 100

HEADER = """\
Every setting of the poisoning monitor, with its default.

Use:  python -m monitor run --config this-file.yaml
Later wins: this file, then the environment, then the command line.
In the environment a setting is MONITOR_ and its key in capitals, with __ between section and
key: MONITOR_KAFKA__BOOTSTRAP_SERVERS=broker-1:9092
Leave out what you do not change. Unknown keys are refused, so a typing error is found at start.

This file is generated; after changing a setting in the code run
python -m monitor.config.example > deploy/config.example.yaml"""


def _comment(text: str, indent: str) -> Iterator[str]:
    width = WIDTH - len(indent) - 2
    for paragraph in text.splitlines():
        for line in textwrap.wrap(paragraph, width) or [""]:
            yield f"{indent}# {line}".rstrip()


def _scalar(value: Any) -> str:
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode() if not value else ""
    if isinstance(value, str):
        return yaml.safe_dump(value, default_style=None).splitlines()[0]
    return orjson.dumps(value).decode()


def _entries(model: type[BaseModel], values: dict[str, Any], indent: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield from _comment(_described(field), indent)
        section = section_of(field)
        if section is not None:
            yield f"{indent}{key}:"
            yield from _entries(section, values[key], indent + "  ")
            yield ""
        else:
            yield from _leaf(key, values[key], indent)


def _leaf(key: str, value: Any, indent: str) -> Iterator[str]:
    yield f"{indent}{key}: {_scalar(value)}".rstrip()
    if isinstance(value, dict):
        for inner, item in value.items():
            yield f"{indent}  {inner}: {_scalar(item)}"
    elif isinstance(value, list):
        for item in value:
            yield f"{indent}  - {_scalar(item)}"


def _described(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def example_yaml() -> str:
    """The text of ``deploy/config.example.yaml``: every setting, its description, its default."""
    lines = [*_comment(HEADER, ""), "", *_entries(Settings, as_dict(Settings()), "")]
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip() + "\n"


if __name__ == "__main__":
    print(example_yaml(), end="")
