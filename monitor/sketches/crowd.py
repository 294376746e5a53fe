"""How each source's events differ from what everybody else sends at the same time.

The stream is cut into short windows. Inside a window the mean of a source's vectors is compared
with the mean of the other sources', so that a drift, a season or a regime, which moves everybody,
cancels. Every source counts once in that reference however many events it sends, and hardly at
all once it is suspicious, so a flood does not become the reference.

Neighbours in time resemble each other, so forty events that a source sends in one burst are not
forty independent witnesses. What they are worth follows from the correlation ρ inside windows: the
variance of a sum of k vectors is k·(1 + (k − 1)·ρ), the design effect of cluster sampling (Kish
1965, §5.4). ρ is measured on the stream itself, by comparing halves of windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.core.types import BoolArray, FloatArray, IntArray
from monitor.sketches.arrays import starts, sums_by_group

WINDOW_EVENTS = 64
LEAST_EVENTS = 12
SUSPECT_WEIGHT = 1e-3
CLIP = 3.0


@dataclass(frozen=True, slots=True)
class Differences:
    """What a batch says about U sources.

    ``total`` float64[U, r]: sums of differences to the crowd, each window's weighted so that its
    variance per direction is its part of ``events`` float64[U], the number of independent events
    it is worth. ``correlation`` float64[k]: an estimate of ρ from each complete window.
    """

    total: FloatArray
    events: FloatArray
    correlation: FloatArray


@dataclass(frozen=True, slots=True)
class _Windows:
    """Rows by window: ``index`` int64[m] into the rows, ``window`` int64[m], ``fresh`` bool[m].

    The first ``full`` of ``count`` windows are of new rows only, and complete.
    """

    index: IntArray
    window: IntArray
    fresh: BoolArray
    full: int
    count: int


def differences(
    rows: FloatArray,
    who: IntArray,
    fresh: int,
    suspect: BoolArray,
    rho: float,
    *,
    dimensions: int,
    closes: bool,
) -> Differences:
    """Compare sources with the crowd.

    Parameters
    ----------
    rows
        float64[m, r] vectors with unit variance: some that were counted before, for reference,
        then the batch.
    who
        int64[m], each row's source as an index below U.
    fresh
        How many rows at the end are new.
    suspect
        bool[U], sources that do not count in the reference.
    rho
        Correlation inside windows.
    dimensions
        How many of the r directions vary; the others are 0.
    closes
        Whether the last, incomplete window ends here and is to be measured for ρ.
    """
    cut = _windows(len(rows), fresh)
    w = _bounded(rows, cut, dimensions)
    sources = len(suspect)
    key = cut.window * sources + who[cut.index]
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    first = starts(ordered)
    source, window = ordered[first] % sources, ordered[first] // sources
    new = cut.fresh[order].astype(np.float64)
    count = np.diff(np.append(first, len(key))).astype(np.float64)
    mine = np.add.reduceat(new, first)
    everything = sums_by_group(w, order, first)
    mean = everything / count[:, None]
    own = everything if cut.fresh.all() else sums_by_group(w, order, first, new)
    weight = np.where(suspect[source], SUSPECT_WEIGHT, 1.0)
    rest, others, spread = _others(mean, weight, count, window, cut.count)
    size = np.bincount(cut.window, minlength=cut.count)[window]
    speaks = (mine > 0) & (rest > 0.5) & (size >= LEAST_EVENTS)
    # The sum over my new events of (vector − crowd), and its variance, bursts counted down.
    raw = own - mine[:, None] * others
    variance = mine * (1.0 + mine * spread) * (1.0 + rho * np.maximum(count - 1.0, 0.0))
    gain = np.where(speaks, mine / np.maximum(variance, 1e-12), 0.0)
    total = np.zeros((sources, w.shape[1]))
    by_source = np.argsort(source, kind="stable")
    start = starts(source[by_source])
    total[source[by_source[start]]] = sums_by_group(raw, by_source, start, gain[by_source])
    events = np.zeros(sources) + np.bincount(
        source, weights=gain * gain * variance, minlength=sources
    )
    return Differences(total, events, _correlation(w, cut, dimensions, closes))


def _windows(m: int, fresh: int) -> _Windows:
    """Complete windows of new rows, then one that ends with the batch and reaches back."""
    full = fresh // WINDOW_EVENTS
    start = m - fresh
    whole = np.arange(start, start + full * WINDOW_EVENTS)
    rest = fresh - full * WINDOW_EVENTS
    back = np.arange(max(0, m - WINDOW_EVENTS), m) if rest else np.empty(0, dtype=np.int64)
    index = np.concatenate([whole, back]).astype(np.int64)
    window = np.concatenate([np.repeat(np.arange(full), WINDOW_EVENTS), np.full(len(back), full)])
    new = np.concatenate([np.ones(len(whole), dtype=bool), back >= m - rest])
    return _Windows(index, window.astype(np.int64), new, full, full + (1 if rest else 0))


def _bounded(rows: FloatArray, cut: _Windows, dimensions: int) -> FloatArray:
    """The rows about their window's mean, no longer than an unusual one: one event, one voice."""
    whole = cut.full * WINDOW_EVENTS
    centred = np.empty((len(cut.index), rows.shape[1]))
    if cut.full:
        start = cut.index[0]
        blocks = rows[start : start + whole].reshape(cut.full, WINDOW_EVENTS, rows.shape[1])
        mean = np.full((1, WINDOW_EVENTS), 1.0 / WINDOW_EVENTS) @ blocks
        np.subtract(blocks, mean, out=centred[:whole].reshape(blocks.shape))
    if cut.count > cut.full:
        last = rows[cut.index[whole:]]
        np.subtract(last, last.mean(axis=0), out=centred[whole:])
    norm = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    longest = np.sqrt(CLIP * max(dimensions, 1))
    centred *= np.minimum(1.0, longest / np.maximum(norm, 1e-12))[:, None]
    return centred


def _others(
    mean: FloatArray, weight: FloatArray, count: FloatArray, window: IntArray, windows: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Each group's reference: its weight, its mean, and that mean's variance per event."""
    first = np.searchsorted(window, np.arange(windows))
    whole = np.add.reduceat(weight, first)[window]
    weighted = weight[:, None] * mean
    total = sums_by_group(weighted, np.arange(len(mean)), first)[window]
    noise = weight * weight / count
    square = np.add.reduceat(noise, first)[window]
    rest = np.maximum(whole - weight, 0.0)
    safe = np.maximum(rest, 1e-9)
    others = (total - weighted) / safe[:, None]
    return rest, others, np.maximum(square - noise, 0.0) / (safe * safe)


def _correlation(w: FloatArray, cut: _Windows, dimensions: int, closes: bool) -> FloatArray:
    """float64[k]: how much more halves of complete windows differ than independent rows would."""
    size = np.bincount(cut.window, minlength=cut.count)
    complete = size == WINDOW_EVENTS
    if not closes and cut.count and not cut.fresh[cut.window == cut.count - 1].all():
        complete[-1] = False
    half = WINDOW_EVENTS // 2
    # Those that are not complete stand at the end.
    blocks = w[: WINDOW_EVENTS * int(complete.sum())].reshape(-1, WINDOW_EVENTS, w.shape[1])
    sign = np.repeat([1.0 / half, -1.0 / half], half)
    gap = (sign @ blocks).reshape(len(blocks), w.shape[1])
    # Var(gap) per direction is 2/half when rows are independent.
    excess = np.einsum("ij,ij->i", gap, gap) / max(dimensions, 1) * (half / 2.0) - 1.0
    return np.asarray(excess / (half - 1.0))
