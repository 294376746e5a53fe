"""What differs between two policies, value by value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from monitor.core.desk import Difference

NAMED_BY = {"overrides": "id", "allow": "source", "deny": "source", "provenance.keys": "id"}
MISSING: Any = object()


def policy_diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Values that differ between two documents, as plain values, by path; not the version.

    Overrides and listed sources are found by their names, not by their places: ``deny[acct-7]``.
    The order of overrides decides between two that fit the same event, so where nothing else of
    them differs a changed order is named as ``overrides.order``.

    Examples
    --------
    >>> policy_diff({"version": 1, "flag_at": 0.01}, {"version": 2, "flag_at": 0.02})
    [Difference(path='flag_at', before=0.01, after=0.02)]
    """
    keys = [*before, *(key for key in after if key not in before)]
    found: list[Difference] = []
    for key in keys:
        if key != "version":
            found += _differing(key, before.get(key, MISSING), after.get(key, MISSING))
    return found


def brought_back(found: Iterable[Difference]) -> list[Difference]:
    """Of what differs, that which a rollback changes: keys and rules for sources stay.

    Examples
    --------
    >>> brought_back([Difference("flag_at", 0.01, 0.02), Difference("provenance.refused", 1, 2)])
    [Difference(path='flag_at', before=0.01, after=0.02)]
    """
    return [one for one in found if not one.path.startswith("provenance")]


def _differing(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if _same(before, after):
        return
    name = NAMED_BY.get(path)
    if name is not None and isinstance(before, list) and isinstance(after, list):
        yield from _listed(path, name, before, after)
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _differing(
                f"{path}.{key}", before.get(key, MISSING), after.get(key, MISSING)
            )
    else:
        yield Difference(path, _shown(before), _shown(after))


def _listed(
    path: str, name: str, before: list[Mapping[str, Any]], after: list[Mapping[str, Any]]
) -> Iterator[Difference]:
    old = {entry[name]: entry for entry in before}
    new = {entry[name]: entry for entry in after}
    found = False
    for key in [*old, *(key for key in new if key not in old)]:
        for one in _differing(f"{path}[{key}]", old.get(key, MISSING), new.get(key, MISSING)):
            found = True
            yield one
    if not found and path == "overrides":
        yield Difference(f"{path}.order", list(old), list(new))


def _same(before: Any, after: Any) -> bool:
    """Equal, and not one a boolean and the other a number."""
    return bool(before == after and isinstance(before, bool) == isinstance(after, bool))


def _shown(value: Any) -> Any:
    return None if value is MISSING else value
