"""Both kinds of databases, for the tests of the store."""

from __future__ import annotations

from tests.checks.postgres import database_url, postgres

__all__ = ["database_url", "postgres"]
