"""The console in the browser: what is going on, incidents, thresholds, quarantine, and so on.

A layer above :mod:`monitor.admin`, on NiceGUI, which comes with the extra ``console``. Pages talk
to the desk in process; what they show of events is text, never markup.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from monitor.console.login import add_login, add_missing

if TYPE_CHECKING:
    from fastapi import FastAPI

    from monitor.admin.app import StatusView
    from monitor.admin.auth import Auth
    from monitor.admin.chain_routes import ChainsView
    from monitor.admin.desk import Desk
    from monitor.admin.incident_routes import IncidentsView


def add_console(
    app: FastAPI,
    status: StatusView,
    desk: Desk | None,
    auth: Auth,
    *,
    incidents: IncidentsView | None = None,
    chains: ChainsView | None = None,
) -> None:
    """Have ``app`` show the console at ``/``, or how to install it.

    Parameters
    ----------
    app
        The service's application. Its own addresses stay as they are.
    status
        Counts of the running service.
    desk
        Policy, quarantine and audit trail; without one the pages say so.
    auth
        Tells who looks.
    incidents
        What flagged events were grouped into.
    chains
        Looks the lives of events up.
    """
    add_login(app)
    if find_spec("nicegui") is None:
        add_missing(app)
        return
    # It takes a second to import and is for processes that serve people.
    from monitor.console.pages import mount  # noqa: PLC0415
    from monitor.console.site import Site  # noqa: PLC0415

    mount(app, Site(status, desk, auth, incidents, chains))
