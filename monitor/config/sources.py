"""Where settings come from: a YAML file, the environment, the command line.

Each source gives nested plain values and remembers where each one came from, so that a bad value
can be reported with the file and key, the variable or the option that holds it.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from monitor.core.errors import UsageError

PREFIX = "MONITOR_"
DELIMITER = "__"
Origins = dict[str, str]


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: 1e-3 is a number, and a key may be given once only."""


# PyYAML follows YAML 1.1, in which a number with an exponent needs a dot and a sign.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, list | dict):
            raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=node.start_mark)
        if key in seen:
            raise yaml.MarkedYAMLError(
                problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark
            )
        seen.add(key)
    return dict(loader.construct_mapping(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)


def parse_yaml(text: str) -> Any:
    """Plain values of a YAML document. Raises ``yaml.YAMLError``."""
    return yaml.load(text, Loader=_Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds.

    Raises
    ------
    UsageError
        When the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        value = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not a UTF-8 text file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UsageError(f"{path}:{where} is not valid YAML: {problem}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: is nested too deeply") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{path}: must hold `key: value` lines, not a {type(value).__name__}")
    return {str(key): item for key, item in value.items()}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and leaf values of a nested mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def field_at(model: type[BaseModel], path: tuple[str, ...]) -> FieldInfo | None:
    """The field a dotted key means, or None where the key leads into a free mapping."""
    found: FieldInfo | None = None
    here: type[BaseModel] | None = model
    for name in path:
        if here is None:
            return None
        found = next((f for n, f in here.model_fields.items() if (f.alias or n) == name), None)
        if found is None:
            return None
        here = section_of(found)
    return found


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model a field holds when it is a section, else None."""
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def is_secret(model: type[BaseModel], path: tuple[str, ...]) -> bool:
    """Whether the setting at ``path`` must not be shown."""
    field = field_at(model, path)
    return field is not None and SecretStr in _parts(field.annotation)


def _takes_text(model: type[BaseModel], path: tuple[str, ...]) -> bool:
    """Whether the setting at ``path`` may be a text, so that "123" must stay one."""
    field = field_at(model, path)
    if field is not None:
        return str in _parts(field.annotation)
    above = field_at(model, path[:-1])
    inside = typing.get_args(above.annotation) if above is not None else ()
    return len(inside) == 2 and str in _parts(inside[1])


def _parts(annotation: Any) -> tuple[Any, ...]:
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    parts = typing.get_args(annotation) if union else (annotation,)
    annotated = typing.Annotated
    return tuple(p.__origin__ if typing.get_origin(p) is annotated else p for p in parts)


def read_environment(
    model: type[BaseModel], environ: Mapping[str, str]
) -> tuple[dict[str, Any], Origins]:
    """Settings given as ``MONITOR_SECTION__KEY=value`` (or ``MONITOR_KEY`` at the top).

    Values are read like YAML scalars, except where the setting is a text. A variable with the
    prefix but without ``__`` that names no setting is left alone: cluster managers set such
    variables themselves. Only one that is a setting's but for its underscores is refused, since
    nobody would notice that it has no effect.

    Raises
    ------
    UsageError
        For a variable that can only be a typing error.
    """
    meant = {_squeezed(_variable(key)): _variable(key) for key in _dotted(model)}
    values: dict[str, Any] = {}
    origins: Origins = {}
    for variable in sorted(environ):
        if not variable.upper().startswith(PREFIX):
            continue
        path = tuple(variable[len(PREFIX) :].lower().split(DELIMITER))
        field = field_at(model, path)
        if len(path) == 1 and (field is None or section_of(field) is not None):
            close = meant.get(_squeezed(variable))
            if close is not None and "://" not in environ[variable]:  # not a cluster's address
                raise UsageError(f"environment variable {variable}: did you mean {close}?")
            continue
        value: Any = environ[variable]
        if not is_secret(model, path):  # a password may be any text, "null" too
            value = _environment_value(variable, value, _takes_text(model, path))
        here = values
        for name in path[:-1]:
            here = here.setdefault(name, {})
            if not isinstance(here, dict):
                raise UsageError(f"environment variable {variable}: no such setting")
        here[path[-1]] = value
        origins[".".join(path)] = f"environment variable {variable}"
    return values, origins


def _dotted(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{above}{field.alias or name}"
        section = section_of(field)
        if section is None:
            yield key
        else:
            yield from _dotted(section, f"{key}.")


def _variable(key: str) -> str:
    return PREFIX + key.upper().replace(".", DELIMITER)


def _squeezed(variable: str) -> str:
    return variable.upper().replace("_", "")


def _environment_value(variable: str, text: str, takes_text: bool) -> Any:
    if takes_text and text.lower() not in ("null", "~", "true", "false"):
        return text
    try:
        return parse_yaml(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"environment variable {variable}: cannot be read: {text!r}") from error
