"""The reliability table, for a terminal and as Markdown."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

HEADS = ("fault", "times", "events in", "out", "lost", "doubled", "restarts", "seconds")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    found = row["ledger"]
    lost = found["lost"] + found["decisions_lost"]
    doubled = found["doubled"] + found["decisions_doubled"]
    return (
        row["fault"],
        f"{row['injected']}",
        f"{found['events_in']:,}",
        f"{found['events_out']:,}",
        f"{lost}",
        f"{doubled}",
        f"{sum(found['restarts'].values())}",
        f"{row['seconds']:.0f}",
    )


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the table, and what else is wrong if anything is."""
    table = Table(title=f"Apache Kafka {result['kafka']}, read_committed", box=box.SIMPLE_HEAD)
    for head in HEADS:
        table.add_column(head, justify="left" if head == "fault" else "right")
    for row in result["rows"]:
        table.add_row(*_cells(row))
    console.print(table)
    console.print(
        "Lost and doubled count records and decisions. Restarts: processes that ended with exit "
        "code 3 and were started again."
    )
    for row in result["rows"]:
        found = row["ledger"]
        if found["changed"] or found["out_of_order"]:
            console.print(
                f"[red]{row['name']}: {found['changed']} records were changed, "
                f"{found['out_of_order']} are out of order"
            )


def markdown(result: dict[str, Any]) -> str:
    """The same table for a README."""
    lines = [" | ".join(HEADS), " | ".join("---" if h == "fault" else "---:" for h in HEADS)]
    lines += [" | ".join(_cells(row)) for row in result["rows"]]
    command = "python loadtest/reliability.py" + (" --quick" if result["quick"] else "")
    if (client := result.get("client", "kafka-python")) != "kafka-python":
        command += f" --client {client}"
    table = "\n".join(f"| {line} |" for line in lines)
    return f"{table}\n\n`{command}`, Apache Kafka {result['kafka']}.\n"
