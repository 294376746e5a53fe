"""What stands behind the audit: where chains are read, by which keys, and who keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monitor.config.settings import Settings
from monitor.core.errors import UsageError
from monitor.state.audit_keys import load_public
from monitor.state.audit_verify import Report
from monitor.transport.audit_folder import Trust, verify_folder


def trust(keys: Sequence[Path], anchors: Path | None, *, restarts: bool) -> Trust:
    """What a verification goes by. Raises UsageError for files that cannot be used."""
    kept: Sequence[bytes] = ()
    if anchors is not None:
        try:
            kept = [line for line in anchors.read_bytes().split(b"\n") if line]
        except OSError as error:
            raise UsageError(f"{anchors}: {error.strerror or error}") from error
    return Trust(load_public(keys) if keys else None, kept, restarts)


def verified(place: Path | None, settings: Settings, by: Trust) -> Report:
    """Check a folder, or what the settings name."""
    if place is None and settings.transport == "local":
        place = Path(settings.local.out_dir)
    if place is None:
        raise UsageError("say which folder: audit verify DIR")
    return verify_folder(place, by)
