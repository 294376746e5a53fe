"""All settings of the service, fixed at start.

Precedence, rising: defaults, YAML file, environment (``MONITOR_KAFKA__BOOTSTRAP_SERVERS``),
command line. What may change while the service runs is the policy, see
:mod:`monitor.config.policy`.
"""

from __future__ import annotations

import difflib
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from monitor.config.audit import AuditSettings
from monitor.config.blast import BlastSettings
from monitor.config.control import ControlSettings
from monitor.config.drills import DrillSettings
from monitor.config.http import HttpSettings
from monitor.config.policy import Policy
from monitor.config.provenance import ProvenanceSettings
from monitor.config.quarantine import QuarantineSettings
from monitor.config.sections import (
    BatchSettings,
    GateSettings,
    KafkaSettings,
    LimitSettings,
    LocalSettings,
    LogSettings,
    OverloadSettings,
    StateSettings,
)
from monitor.config.sources import (
    Origins,
    field_at,
    flatten,
    is_secret,
    read_environment,
    read_yaml,
    section_of,
)
from monitor.core.errors import UsageError

MAX_GIVEN = 200


class Settings(BaseSettings):
    """Everything an operator can set, in sections. Strict, frozen, no unknown keys.

    Examples
    --------
    >>> load_settings(environ={"MONITOR_BATCH__MAX_EVENTS": "256"}).batch.max_events
    256
    >>> load_settings(environ={}, options={"http.port": 99999})
    Traceback (most recent call last):
    ...
    monitor.core.errors.UsageError: command line: http.port: must be less than or equal to 65535, \
not 99999
    """

    model_config = SettingsConfigDict(strict=True, frozen=True, extra="forbid")

    transport: Literal["kafka", "local"] = Field(
        default="kafka",
        description="Where events come from and go to: kafka (topics) or local (files and pipes).",
    )
    policy: Policy = Field(
        default_factory=Policy,
        description="Thresholds and mode at the first start. What is changed later, while the "
        "service runs, is stored and goes before this.",
    )
    control: ControlSettings = Field(
        default_factory=ControlSettings,
        description="How the policy is changed while the service runs.",
    )
    gate: GateSettings = Field(
        default_factory=GateSettings, description="How the gate learns what is ordinary."
    )
    limits: LimitSettings = Field(
        default_factory=LimitSettings,
        description="Bounds on a single event; what goes over them is an invalid event.",
    )
    batch: BatchSettings = Field(
        default_factory=BatchSettings,
        description="How many events are judged, and committed, together.",
    )
    overload: OverloadSettings = Field(
        default_factory=OverloadSettings,
        description="What happens when events come faster than they can be judged.",
    )
    state: StateSettings = Field(
        default_factory=StateSettings,
        description="How often what the gate has learned is stored.",
    )
    kafka: KafkaSettings = Field(
        default_factory=KafkaSettings, description="Apache Kafka, for `transport: kafka`."
    )
    local: LocalSettings = Field(
        default_factory=LocalSettings,
        description="Files and pipes, for `transport: local`.",
    )
    quarantine: QuarantineSettings = Field(
        default_factory=QuarantineSettings,
        description="The store in which people look through what was held back.",
    )
    blast: BlastSettings = Field(
        default_factory=BlastSettings,
        description="The index of accepted events: what a source has already taught the model.",
    )
    drills: DrillSettings = Field(
        default_factory=DrillSettings,
        description="Attacks that the service tries on a copy of its state, to know what it would "
        "catch.",
    )
    audit: AuditSettings = Field(
        default_factory=AuditSettings,
        description="A chain of hashes over all decisions and over what people do.",
    )
    provenance: ProvenanceSettings = Field(
        default_factory=ProvenanceSettings,
        description="Secrets for signed events; who may sign for whom is policy.provenance.",
    )
    http: HttpSettings = Field(
        default_factory=HttpSettings,
        description="The HTTP interface: health, metrics, checks, live tuning and review.",
    )
    log: LogSettings = Field(
        default_factory=LogSettings, description="Logs, always to standard error."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is handed over: ``Settings()`` is the defaults, whatever the environment."""
        return (init_settings,)


def load_settings(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from a YAML file, the environment and the command line.

    Parameters
    ----------
    path
        YAML file, or None for none.
    environ
        Environment variables; the process's own by default.
    options
        Command line values by dotted key (``http.port``); None values count as not given.

    Raises
    ------
    UsageError
        In one line: where the bad value stands, its key, and what is allowed.
    """
    from_file = read_yaml(path) if path is not None else {}
    from_environ, origins = read_environment(Settings, os.environ if environ is None else environ)
    given = {key: value for key, value in (options or {}).items() if value is not None}
    from_options = _nested(given)
    origins |= dict.fromkeys(given, "command line")
    default_origin = str(path) if path is not None else "settings"

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(
                InitSettingsSource(settings_cls, values)
                for values in (from_options, from_environ, from_file)
            )

    try:
        # A class of this call's own would be unequal to everybody else's.
        return Settings.model_construct(**dict(Sourced()))
    except ValidationError as error:
        raise UsageError(_sentence(error, origins, default_origin)) from error


def _nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in dotted.items():
        *sections, name = key.split(".")
        here = nested
        for section in sections:
            here = here.setdefault(section, {})
        here[name] = value
    return nested


def load_policy(path: Path) -> Policy:
    """The policy a YAML file holds, either alone or under the key ``policy``.

    Raises
    ------
    UsageError
        In one line: the file, the key, and what is allowed.
    """
    values = read_yaml(path)
    if set(values) == {"policy"} and isinstance(values["policy"], dict):
        values = values["policy"]
    return checked_policy(values, str(path))


def checked_policy(values: Mapping[str, Any], origin: str) -> Policy:
    """The policy that plain values describe; what is absent has its default.

    Raises
    ------
    UsageError
        In one line: ``origin``, the key, and what is allowed.
    """
    try:
        return Policy.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError(_sentence(error, {}, origin, Policy)) from error


def with_policy(settings: Settings, base: Policy | None, changes: Mapping[str, Any]) -> Settings:
    """The same settings with the policy replaced by ``base`` and then changed.

    Raises
    ------
    UsageError
        When the changed policy is not allowed.
    """
    policy = base or settings.policy
    values = policy.model_dump() | {k: v for k, v in changes.items() if v is not None}
    try:
        return settings.model_copy(update={"policy": Policy.model_validate(values)})
    except ValidationError as error:
        raise UsageError(_sentence(error, {}, "command line", Policy)) from error


def _sentence(
    error: ValidationError, origins: Origins, default_origin: str, model: type[BaseModel] = Settings
) -> str:
    """One line: origin, key and what is allowed, for the first problem."""
    problem = error.errors(include_url=False)[0]
    path = tuple(str(part) for part in problem["loc"])
    key = ".".join(path)
    candidates = [key] + [k for k in origins if k.startswith(f"{key}.") or key.startswith(f"{k}.")]
    origin = next((origins[k] for k in candidates if k in origins), default_origin)
    return f"{origin}: {key + ': ' if key else ''}{_allowed(problem, path, model)}"


def _allowed(problem: ErrorDetails, path: tuple[str, ...], model: type[BaseModel]) -> str:
    if problem["type"] == "extra_forbidden":
        known = _names(model, path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"no such setting; {hint}known here: {', '.join(known)}"
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] == "model_type":
        return f"must be a section with keys {', '.join(_names(model, path))}"
    text = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    # An option may be a secret.
    if (
        problem["type"] == "value_error"
        or problem["type"].endswith("too_long")
        or "options" in path
        or path[-1:] == ("secret",)
        or is_secret(model, path)
    ):
        return text
    given = repr(problem["input"])
    return f"{text}, not {given if len(given) <= MAX_GIVEN else given[:MAX_GIVEN] + '…'}"


def _names(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    here: type[BaseModel] | None = model
    if path:
        field = field_at(model, path)
        above = field_at(model, path[:-1])
        here = section_of(field) if field is not None else _member(above)
    return [f.alias or n for n, f in here.model_fields.items()] if here is not None else []


def _member(field: FieldInfo | None) -> type[BaseModel] | None:
    """The model of which the field holds several, in a list or by name."""
    inside = typing.get_args(field.annotation)[-1:] if field is not None else ()
    kind = inside[0] if inside else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def as_dict(settings: Settings) -> dict[str, Any]:
    """Plain nested values under the names used in YAML files."""
    return settings.model_dump(mode="json", by_alias=True)


def keys(settings: Settings) -> dict[str, Any]:
    """Every setting by dotted key, with its value."""
    return dict(flatten(as_dict(settings)))
