"""Synthetic events for the fake desk: an honest crowd, a ring, a backdoor, an odd reviewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from monitor.core.desk import Held

DETECTORS: dict[str, str] = {
    "label_conflict": "label_flip",
    "trigger": "backdoor",
    "class_moments": "clean_label",
    "novelty": "clean_label",
    "source_evidence": "sybil",
    "ring": "sybil",
    "replay": "replay",
}
FAMILIES = ("label_flip", "backdoor", "clean_label", "sybil", "replay")
LABELS = ("legit", "fraud", "unsure")
HONEST = tuple(f"acct-{i:03d}" for i in range(60))
RING = tuple(f"ring-1-{i:03d}" for i in range(12))
BACKDOOR = ("bulk-upload-7", "bulk-upload-9")
COLUMNS = ("amount", "hour", "age_days", "n_devices", "country_risk", "basket")
TEXTS = {
    "label_conflict": "label {label!r}, but comparable trusted events are 93 % {other!r}",
    "trigger": "amount≈77 and hour≈3 together with label {label!r} came 25 times where 0.6 were "
    "expected",
    "class_moments": "amount is 6.1 robust deviations from what {label!r} shows",
    "novelty": "values between those their columns take: amount, basket",
    "source_evidence": "source {source!r} has sent 41 events, 37 of them with labels among the "
    "10 % most surprising",
    "ring": "12 sources push label {label!r} at the same time, {source!r} among them",
    "replay": "the same feature vector came 14 times in 10 minutes",
}


@dataclass(frozen=True)
class Recent:
    """Recent events in columns, as the what-if wants them."""

    names: tuple[str, ...]
    p: np.ndarray  # float64[n, D]
    label: np.ndarray  # int64[n]
    source: np.ndarray  # int64[n]
    sources: tuple[str, ...]
    when: np.ndarray  # float64[n]


def recent_events(n: int, now: float, seed: int = 5) -> Recent:
    """``n`` events: 96 % honest with uniform p-values, the rest of three attacks."""
    rng = np.random.default_rng(seed)
    names = tuple(DETECTORS)
    sources = HONEST + RING + BACKDOOR
    p = rng.uniform(size=(n, len(names)))
    source = rng.choice(len(HONEST), size=n, p=_zipf(len(HONEST)))
    label = rng.choice(len(LABELS), size=n, p=[0.8, 0.15, 0.05])
    kind = rng.choice(3, size=n, p=[0.96, 0.03, 0.01])
    ring, backdoor = kind == 1, kind == 2
    source[ring] = len(HONEST) + rng.integers(0, len(RING), ring.sum())
    source[backdoor] = len(HONEST) + len(RING) + rng.integers(0, 2, backdoor.sum())
    label[ring | backdoor] = 0
    for attack, detectors in (
        (ring, ("label_conflict", "source_evidence", "ring")),
        (backdoor, ("trigger", "novelty")),
    ):
        for name in detectors:
            column = names.index(name)
            p[attack, column] = 10.0 ** -rng.gamma(4.0, 1.2, attack.sum())
    when = np.sort(now - rng.uniform(0, 1800, n))
    return Recent(names, np.maximum(p, 1e-12), label, source, sources, when)


def _zipf(n: int) -> np.ndarray:
    part = 1.0 / np.arange(1, n + 1)
    return part / part.sum()


def held_events(n: int, now: float, seed: int = 11) -> list[Held]:
    """``n`` held events of the last six hours, the oldest first."""
    rng = np.random.default_rng(seed)
    when = np.sort(now - rng.beta(1.2, 2.5, n) * 6 * 3600)
    return [one_held(i, float(at), now, rng) for i, at in enumerate(when)]


def one_held(number: int, at: float, now: float, rng: np.random.Generator) -> Held:
    """A held event."""
    kind = rng.choice(
        ["ring", "backdoor", "clean", "stray", "replay"], p=[0.5, 0.2, 0.1, 0.15, 0.05]
    )
    source, found, incident = {
        "ring": (str(rng.choice(RING)), ("label_conflict", "source_evidence", "ring"), "inc-1"),
        "backdoor": (str(rng.choice(BACKDOOR)), ("trigger",), "inc-2"),
        "clean": (str(rng.choice(HONEST)), ("class_moments", "novelty"), None),
        "stray": (str(rng.choice(HONEST)), ("label_conflict",), None),
        "replay": (str(rng.choice(HONEST)), ("replay",), None),
    }[kind]
    label = "legit" if kind in ("ring", "backdoor") else str(rng.choice(LABELS))
    risk = round(float(3.0 + rng.gamma(1.6, 1.3)), 3)
    partition, offset = number % 4, 1000 + 17 * number
    families = tuple(dict.fromkeys(DETECTORS[name] for name in found))
    version = int(np.clip(6 - (now - at) // 4000, 1, 6))
    event = _event(number, at, source, label, rng)
    decision = {
        "id": event["id"], "ts": event["ts"], "source": source, "label": label,
        "partition": partition, "offset": offset, "verdict": "quarantine", "action": "hold",
        "mode": "enforce", "risk": risk, "families": list(families),
        "reasons": [_reason(name, source, label, rng) for name in found],
        "policy_version": version, "incident": incident,
    }  # fmt: skip
    return Held(
        key=f"{partition}-{offset}", partition=partition, offset=offset, held_at=at,
        event_id=event["id"], source=source, subject=event["subject"], label=label, ts=event["ts"],
        risk=risk, families=families, detectors=found, policy_version=version, incident=incident,
        decision=decision, value=orjson.dumps(event),
    )  # fmt: skip


def _event(
    number: int, at: float, source: str, label: str, rng: np.random.Generator
) -> dict[str, Any]:
    values = rng.normal(size=len(COLUMNS)).round(3).tolist()
    return {
        "id": f"evt-{number:05d}",
        "ts": round(at - 2.0, 3),
        "source": source,
        "subject": f"merchant-{rng.integers(40)}" if rng.uniform() < 0.7 else None,
        "label": label,
        "features": dict(zip(COLUMNS, values, strict=True)),
    }


def _reason(name: str, source: str, label: str, rng: np.random.Generator) -> dict[str, Any]:
    other = "fraud" if label != "fraud" else "legit"
    return {
        "detector": name,
        "score": round(float(rng.gamma(4.0)), 3),
        "p_value": float(f"{10 ** -rng.uniform(3, 9):.2e}"),
        "threshold": 1e-3,
        "text": TEXTS[name].format(label=label, source=source, other=other) + ".",
        "evidence": _evidence(name, source, (label, other), rng),
    }


def _evidence(
    name: str, source: str, labels: tuple[str, str], rng: np.random.Generator
) -> dict[str, Any]:
    """In the form in which the detectors put it down."""
    label, other = labels
    off = rng.gamma(3.0, 1.5, 3).round(2).tolist()
    return {
        "label_conflict": {
            "given": label, "given_probability": 0.05, "expected": other,
            "expected_probability": 0.93,
        },
        "trigger": {
            "columns": ["amount", "hour"], "values": [77.0, 3.0], "label": label, "count": 25.4,
            "expected": 0.6, "lift": 15.6,
        },
        "class_moments": {
            "label": label, "mahalanobis": 9.2,
            "features": [
                {"name": column, "deviations": by, "value": round(by * 12.5, 1)}
                for column, by in zip(COLUMNS, off, strict=False)
            ],
        },
        "novelty": {"values": {"amount": 77.01, "basket": 3.5}, "columns": 2, "nats": 9.4},
        "source_evidence": {
            "source": source, "events": 41, "surprising": 37, "nats": 22.6,
            "speaks_for": "label_flip",
        },
        "ring": {
            "source": source, "label": label, "share": 0.97, "usual_share": 0.08,
            "others_alike": 11, "nats": 5.1,
        },
        "replay": {"copies": 14, "label": label, "usual_share": 0.002},
    }[name]  # fmt: skip
