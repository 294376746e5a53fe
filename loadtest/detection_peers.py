"""The tools there are, as people use them on a stream: numbers in, one suspicion an event out.

Each peer scores an event from what came before it, and learns from everything (it has no gate);
cleanlab, which has no online form, judges each window with the window itself, in its favour.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from monitor.core.types import FloatArray, IntArray

BATCH = 256
NEAR_WINDOW = 3_000
CLEANLAB_WINDOW = 5_000
NEIGHBOURS = 15
REFIT_EVENTS = 1_000
FEW = 16

Score = Callable[[FloatArray, IntArray, int], FloatArray]


@dataclass(frozen=True)
class Peer:
    """A contestant: ``score(x, y, classes)`` and the packages it needs."""

    title: str
    score: Score
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(name for name in self.needs if importlib.util.find_spec(name) is None)


def _blocks(n: int, size: int, window: int) -> Iterator[tuple[slice, slice]]:
    """(the events to score, the events before them that count); the first block is half as long."""
    ends = [*range(size // 2, n, size), n]
    for first, end in pairwise((0, *ends)):
        yield slice(first, end), slice(max(0, first - window), first)


def _filled(score: FloatArray) -> FloatArray:
    known = np.isfinite(score)
    return np.where(known, score, np.median(score[known]) if known.any() else 0.0)


def _standardised(known: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    centre, scale = known.mean(axis=0), known.std(axis=0)
    scale = np.where(scale > 0.0, scale, 1.0)
    return (known - centre) / scale, (x - centre) / scale


def _as_dicts(x: FloatArray) -> list[dict[int, float]]:
    return [dict(enumerate(row)) for row in x.tolist()]


def river_model(classes: int) -> Any:
    """river's smallest online classifier: standardise, logistic regression."""
    from river import linear_model, multiclass, preprocessing  # noqa: PLC0415

    model: Any = linear_model.LogisticRegression()
    if classes > 2:
        model = multiclass.OneVsRestClassifier(model)
    return preprocessing.StandardScaler() | model


def river_logistic(x: FloatArray, y: IntArray, classes: int) -> FloatArray:
    """1 − p(label) just before the label is learned."""
    model = river_model(classes)
    said = y.tolist() if classes > 2 else (y == 1).tolist()
    score = np.empty(len(y))
    for i, (row, label) in enumerate(zip(_as_dicts(x), said, strict=True)):
        score[i] = 1.0 - model.predict_proba_one(row).get(label, 0.0)
        model.learn_one(row, label)
    return _filled(score)


def neighbours(x: FloatArray, y: IntArray, classes: int) -> FloatArray:
    """Share of the 15 nearest of the last 3,000 events with another label."""
    score = np.full(len(y), np.nan)
    for now, past in _blocks(len(y), BATCH, NEAR_WINDOW):
        if past.stop - past.start <= NEIGHBOURS:
            continue
        known, new = _standardised(x[past], x[now])
        distance = (known**2).sum(axis=1)[None, :] - 2.0 * new @ known.T
        nearest = np.argpartition(distance, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        score[now] = (y[past][nearest] != y[now][:, None]).mean(axis=1)
    return _filled(score)


def cleanlab_logistic(x: FloatArray, y: IntArray, classes: int) -> FloatArray:
    """Confident learning's label quality from 5-fold probabilities, window by window."""
    from cleanlab.rank import get_label_quality_scores  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    score = np.full(len(y), np.nan)
    for first in range(0, len(y), CLEANLAB_WINDOW):
        end = min(first + CLEANLAB_WINDOW, len(y))
        window = np.arange(max(0, end - CLEANLAB_WINDOW), end)
        present, said = np.unique(y[window], return_inverse=True)
        if len(present) < 2:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rare classes, slow convergence: as it comes
            p = cross_val_predict(model, x[window], said, cv=folds, method="predict_proba")
            quality = get_label_quality_scores(said, p)
        score[first:end] = 1.0 - quality[window >= first]
    return _filled(score)


def isolation(x: FloatArray, y: IntArray, classes: int) -> FloatArray:
    """An isolation forest a class, fitted anew every 1,000 events on the last 3,000."""
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415

    score = np.full(len(y), np.nan)
    for now, past in _blocks(len(y), REFIT_EVENTS, NEAR_WINDOW):
        for c in np.unique(y[now]).tolist():
            known = x[past][y[past] == c]
            if len(known) < FEW:
                continue
            rows = now.start + np.flatnonzero(y[now] == c)
            forest = IsolationForest(random_state=0).fit(known)
            score[rows] = -forest.score_samples(x[rows])
    return _filled(score)


def mahalanobis(x: FloatArray, y: IntArray, classes: int) -> FloatArray:
    """Squared distance to the label's mean under its covariance, last 3,000 events."""
    score = np.full(len(y), np.nan)
    for now, past in _blocks(len(y), BATCH, NEAR_WINDOW):
        if past.stop - past.start < FEW:
            continue
        known, new = _standardised(x[past], x[now])
        for c in np.unique(y[now]).tolist():
            own = known[y[past] == c]
            if len(own) < FEW:
                continue
            rows = np.flatnonzero(y[now] == c)
            off = new[rows] - own.mean(axis=0)
            spread = np.atleast_2d(np.cov(own, rowvar=False))
            weight = len(own) / (len(own) + 2.0 * x.shape[1])
            spread = weight * spread + (1.0 - weight) * np.eye(x.shape[1])
            score[now.start + rows] = (off * np.linalg.solve(spread, off.T).T).sum(axis=1)
    return _filled(score)


def half_space(x: FloatArray, y: IntArray, classes: int) -> FloatArray:
    """river's half-space trees (Tan, Ting, Liu 2011), one ensemble a class."""
    from river import anomaly, preprocessing  # noqa: PLC0415

    models: dict[int, Any] = {}
    score = np.empty(len(y))
    for i, (row, label) in enumerate(zip(_as_dicts(x), y.tolist(), strict=True)):
        if label not in models:
            trees = anomaly.HalfSpaceTrees(seed=label)
            models[label] = preprocessing.MinMaxScaler() | trees
        score[i] = models[label].score_one(row)
        models[label].learn_one(row)
    return _filled(score)


PEERS: dict[str, Peer] = {
    "river_lr": Peer("river scaler and logistic regression, 1 − p(label)", river_logistic),
    "knn": Peer("kNN(15) agreement, 3k window", neighbours),
    "cleanlab": Peer(
        "cleanlab, logistic regression, 5k windows", cleanlab_logistic, ("cleanlab", "sklearn")
    ),
    "iforest": Peer("isolation forest per class", isolation, ("sklearn",)),
    "mahalanobis": Peer("Mahalanobis per class", mahalanobis),
    "half_space": Peer("river half-space trees per class", half_space),
}
