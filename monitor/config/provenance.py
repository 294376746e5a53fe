"""The section ``provenance``: where this replica has the secrets that keys of the policy name."""

from __future__ import annotations

from pydantic import Field

from monitor.config.base import FileName, Section


class ProvenanceSettings(Section):
    """What a replica has to have by itself, since it never travels with the policy."""

    secret_dir: FileName | None = Field(
        default=None,
        description="Folder of the secrets of hmac-sha256 keys: a file for each, under the name "
        "that the policy's key gives, with the secret in base64. One that is not there is looked "
        "for in the environment, as POISONING_MONITOR_SECRET_ and the name in capitals, with _ "
        "for - and dots. Read when a version of the policy comes into force.",
    )
