"""Which page of ``deploy/runbooks`` says what to do about an incident or a family."""

from __future__ import annotations

from monitor.core.incident import IncidentKind
from monitor.core.types import Family

BASE = "deploy/runbooks"
"""Where the pages stand in this repository; alerts link there unless Prometheus knows better."""

INDEX = "README.md"


def runbook(kind: str, family: str, base: str = BASE) -> str:
    """Where the page about incidents of this kind and family can be read.

    Parameters
    ----------
    kind
        ``campaign``, ``drift`` or ``data_fault``; anything else counts as a campaign.
    family
        A family; of a data fault its name, for which there is one page together.
    base
        Where the folder ``deploy/runbooks`` can be read: a path or an address.

    Returns
    -------
    str
        For a family without a page of its own the index.

    Examples
    --------
    >>> runbook("campaign", "backdoor")
    'deploy/runbooks/backdoor.md'
    >>> runbook("data_fault", "frozen", "https://wiki.example.com/runbooks/")
    'https://wiki.example.com/runbooks/data_fault.md'
    """
    if kind == IncidentKind.DATA_FAULT:
        page = f"{IncidentKind.DATA_FAULT}.md"
    elif kind == IncidentKind.DRIFT:
        page = f"{Family.DRIFT}.md"
    else:
        page = f"{family}.md" if family in set(Family) else INDEX
    return f"{base.rstrip('/')}/{page}"
