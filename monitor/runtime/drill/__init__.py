"""Drills: marked attacks on a copy of the state, to know what would be caught today."""

from monitor.runtime.drill.desk import Drills, Schedule

__all__ = ["Drills", "Schedule"]
