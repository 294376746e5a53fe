"""The gate in front of a model's own learning method, inside one process.

``GatedLearner`` wraps a river or scikit-learn model. What it is told to learn becomes an event,
the gate judges it, and only what passes reaches the model.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import orjson

from monitor.core.errors import UsageError
from monitor.core.types import Action, DecisionBatch, IntArray
from monitor.gate import Gate
from monitor.learner_tables import Table, column, pick, table_of

M = TypeVar("M")
MANY_EVENTS = 512
OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_NAIVE_UTC
# Neither is JSON, so the decoder refuses the event and says that the number is not finite.
NOT_FINITE = {"nan": orjson.Fragment(b"NaN"), "inf": orjson.Fragment(b"Infinity")}


@dataclass(frozen=True, slots=True)
class Held:
    """An example that did not reach the model: what it was, and the decision record about it."""

    x: Any
    y: Any
    decision: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _About:
    """What came beside features and label: one value each, or one a row."""

    source: Any
    id: Any
    ts: Any
    weight: Any

    def rows(self, n: int) -> list[_About]:
        columns = (column(value, n) for value in (self.source, self.id, self.ts, self.weight))
        return [_About(*values) for values in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One example of ``learn_one`` between its call and the gate."""

    event: bytes
    x: Mapping[Any, Any]
    y: Any
    params: Mapping[str, Any]


class GatedLearner(Generic[M]):
    """A model that learns only what passes the gate.

    Learning methods are the model's own (river's ``learn_one`` and ``learn_many``, scikit-learn's
    ``partial_fit``) with three more keywords: ``source``, who supplied the example; ``id``; and
    ``ts``, Unix seconds or RFC 3339 text. Give ``source`` whenever it is known: it is the
    strongest evidence there is. Without it every example counts as a source of its own, without
    ``id`` it gets a number, and without ``ts`` a clock that ticks once a second per example.
    Everything else, prediction above all, is the model's.

    Parameters
    ----------
    model
        Any object with those learning methods. Also reachable as ``.model``.
    gate
        The gate, with its limits and policy; one with the defaults if not given. Its first
        examples (512 by default) pass unjudged, to learn from them what is ordinary.
    batch_events
        How many calls of ``learn_one`` are judged together. 1 judges and learns at once; a larger
        number is many times faster, and shows the gate a burst as a burst, but the model learns
        up to that many examples later. Call :meth:`flush` at the end.
    keep_held
        How many of the latest examples that did not pass are kept in ``held``.
    allow_nan
        False refuses NaN, which would spoil many models for good; True takes it for missing.
        Infinite numbers are always refused. None is always missing.

    Attributes
    ----------
    last
        The latest decisions, None before any.
    counts
        Examples so far by action: pass, hold, reject.

    Examples
    --------
    In front of a river model:

    >>> from river import linear_model, preprocessing
    >>> model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    >>> learner = GatedLearner(model, batch_events=64)
    >>> for i in range(640):
    ...     fraud = i % 3 == 0
    ...     x = {"amount": 5.0 * fraud + i % 7, "hour": i % 24}
    ...     learner.learn_one(x, fraud, source=f"acct-{i % 20}")
    >>> learner.learn_one({"amount": float("nan"), "hour": 3}, True, source="acct-7")
    >>> learner.flush()
    >>> learner.held[-1].decision["reasons"][0]["code"]
    'non_finite'
    >>> sum(learner.counts.values())
    641
    >>> learner.predict_one({"amount": 10.0, "hour": 12})
    True

    In front of a scikit-learn model:

    >>> import numpy as np
    >>> from sklearn.linear_model import SGDClassifier
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 1024)
    >>> X = rng.normal(size=(1024, 3)) + 3.0 * y[:, None]
    >>> learner = GatedLearner(SGDClassifier(random_state=0))
    >>> for rows in np.split(np.arange(1024), 4):
    ...     learner = learner.partial_fit(X[rows], y[rows], classes=[0, 1])
    >>> learner.predict([[0.0, 0.0, 0.0], [3.0, 3.0, 3.0]]).tolist()
    [0, 1]
    """

    def __init__(
        self,
        model: M,
        gate: Gate | None = None,
        *,
        batch_events: int = 1,
        keep_held: int = 1000,
        allow_nan: bool = False,
    ) -> None:
        if batch_events < 1:
            raise UsageError(f"batch_events must be at least 1, not {batch_events}")
        self.model = model
        self.gate = gate if gate is not None else Gate()
        self.last: DecisionBatch | None = None
        self.counts: dict[str, int] = {action.word: 0 for action in Action}
        self._batch_events = batch_events
        self._allow_nan = allow_nan
        self._held: deque[Held] = deque(maxlen=keep_held)
        self._waiting: list[_Waiting] = []
        self._due: deque[_Waiting] = deque()
        self._classes: Any = None
        self._seen = 0

    def __getattr__(self, name: str) -> Any:
        """Everything that is not about learning is the model's."""
        if name.startswith("__") or "model" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.model, name)

    @property
    def held(self) -> tuple[Held, ...]:
        """The latest examples that did not pass, oldest first."""
        return tuple(self._held)

    def learn_one(
        self,
        x: Mapping[Any, Any],
        y: Any,
        *,
        source: str | None = None,
        id: str | None = None,
        ts: Any = None,
        **params: Any,
    ) -> None:
        """River's ``learn_one``, behind the gate. Returns None, as river does.

        Parameters
        ----------
        x, y
            Features by name, and a label: str, int or bool.
        source, id, ts
            See the class.
        params
            Handed on to the model.
        """
        features = {name: self._cell(value) for name, value in x.items()}
        event = self._event(features, y, _About(source, id, ts, params.get("w")))
        self._waiting.append(_Waiting(event, x, y, params))
        if len(self._waiting) >= self._batch_events:
            self.flush()

    def flush(self) -> None:
        """Judge, and learn, what waits. Call it after the last ``learn_one``."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            decisions = self._judge([item.event for item in waiting])
            self._keep(decisions, lambda row: (waiting[row].x, waiting[row].y))
            self._due.extend(waiting[row] for row in decisions.rows(Action.PASS))
        model: Any = self.model
        while self._due:
            # Taken off first: an example at which the model fails is not tried for ever.
            item = self._due.popleft()
            model.learn_one(item.x, item.y, **item.params)

    def learn_many(
        self, X: Any, y: Any, *, source: Any = None, id: Any = None, ts: Any = None, **params: Any
    ) -> None:
        """River's ``learn_many``, behind the gate.

        Parameters
        ----------
        X, y
            A frame (pandas, polars, pyarrow, …) of n rows and its n labels.
        source, id, ts
            One for all rows, or n of them; see the class.
        params
            Handed on; those with a value for each row lose the rows that did not pass.
        """
        rows, n = self._gate_table(X, y, _About(source, id, ts, params.get("w")))
        if len(rows):
            model: Any = self.model
            kept = {name: pick(value, rows, n) for name, value in params.items()}
            model.learn_many(pick(X, rows, n), pick(y, rows, n), **kept)

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: Any = None,
        *,
        source: Any = None,
        id: Any = None,
        ts: Any = None,
        **params: Any,
    ) -> GatedLearner[M]:
        """scikit-learn's ``partial_fit``, behind the gate. Returns itself.

        Parameters
        ----------
        X, y
            An array, sparse matrix or frame of n rows, and its n labels.
        classes
            As scikit-learn wants it in the first call; remembered until something passed.
        source, id, ts
            One for all rows, or n of them; see the class.
        params
            Handed on; those with a value for each row lose the rows that did not pass.
        """
        if classes is not None:
            self._classes = classes
        about = _About(source, id, ts, params.get("sample_weight"))
        rows, n = self._gate_table(X, y, about)
        if len(rows):
            model: Any = self.model
            kept = {name: pick(value, rows, n) for name, value in params.items()}
            if self._classes is not None:
                kept["classes"] = self._classes
            model.partial_fit(pick(X, rows, n), pick(y, rows, n), **kept)
            self._classes = None
        return self

    def _gate_table(self, X: Any, y: Any, about: _About) -> tuple[IntArray, int]:
        """Judge the rows of a table; int64[m], those that passed, and how many there were."""
        self.flush()
        table = table_of(X, y)
        n = len(table)
        each = about.rows(n)
        parts: list[DecisionBatch] = []
        for first in range(0, n, MANY_EVENTS):
            span = range(first, min(first + MANY_EVENTS, n))
            features = table.features(span)
            if self._allow_nan and table.frame is None:
                # An array has no place for a missing value; named values do.
                features = [{f"f{i}": v for i, v in enumerate(row)} for row in features]
            self._plain(features)
            events = [
                self._event(row, table.labels[i], each[i])
                for row, i in zip(features, span, strict=True)
            ]
            parts.append(self._judge(events))
        if not parts:
            return np.zeros(0, dtype=np.int64), 0
        decisions = self.last = DecisionBatch.joined(parts)
        self._keep(decisions, lambda row: (_row_of(table, row), table.labels[row]))
        return decisions.rows(Action.PASS), n

    def _plain(self, rows: list[Any]) -> None:
        """Replace what is not a finite number in freshly made rows."""
        for row in rows:
            items: Iterable[tuple[Any, Any]] = (
                row.items() if isinstance(row, dict) else enumerate(row)
            )
            odd = [(at, v) for at, v in items if isinstance(v, float) and not math.isfinite(v)]
            for at, value in odd:
                row[at] = self._cell(value)

    def _cell(self, value: Any) -> Any:
        """One feature value as JSON can say it."""
        if isinstance(value, float | np.floating) and not math.isfinite(value):
            if math.isinf(value):
                return NOT_FINITE["inf"]
            return None if self._allow_nan else NOT_FINITE["nan"]
        return value

    def _event(self, features: Any, y: Any, about: _About) -> bytes:
        number = self._seen
        self._seen += 1
        name = f"learner-{number}" if about.id is None else str(about.id)
        event = {
            "id": name,
            "ts": float(number) if about.ts is None else about.ts,
            "source": name if about.source is None else str(about.source),
            "label": _label(y),
            "features": features,
        }
        if about.weight is not None and about.weight > 0:
            event["weight"] = float(about.weight)
        return orjson.dumps(event, default=str, option=OPTIONS)

    def _judge(self, events: Sequence[bytes]) -> DecisionBatch:
        decisions = self.last = self.gate.check(events)
        for action in Action:
            self.counts[action.word] += int((decisions.action == action).sum())
        return decisions

    def _keep(self, decisions: DecisionBatch, example: Callable[[int], tuple[Any, Any]]) -> None:
        for row in np.flatnonzero(decisions.action != Action.PASS).tolist():
            x, y = example(row)
            self._held.append(Held(x, y, orjson.loads(decisions.records[row])))


def _row_of(table: Table, row: int) -> Any:
    return table.features(range(row, row + 1))[0]


def _label(y: Any) -> Any:
    """A label as the wire format has it; 1.0 becomes 1, as scikit-learn users often mean."""
    value = y.item() if isinstance(y, np.generic) else y
    return int(value) if isinstance(value, float) and value.is_integer() else value
