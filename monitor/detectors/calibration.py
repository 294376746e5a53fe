"""From a raw score to the probability that ordinary traffic scores as high.

Four layers, each for a failure of the one before:

1. *Body*: the empirical distribution of the last ``window`` scores of ordinary traffic.
2. *Tail*: an empirical p-value of m scores cannot say less than 1/m. ``pareto`` fits a generalised
   Pareto law to the top 5 % (Pickands 1975; probability-weighted moments after Hosking and Wallis
   1987), its shape kept at or above zero, since a bounded tail would call every new extreme
   impossible. ``robust`` is for scores whose top an attacker can fill: it extrapolates a Weibull
   law, no heavier than exponential, from quantiles well below the top, so that up to 15 % poison
   cannot hide behind itself; and scores it finds impossible are not learned (unless they are a
   fifth of all traffic, which is a change of the world and not a tail). A robust score that is
   nearly always the same has a tail of its own. In the other kinds what lies at the top is learned
   at a bounded pace.
3. *Drift*: between fits the law moves. For ``pareto``, the share of ordinary events that fell below
   1 %, 0.1 % and 0.01 % lately corrects the p-values, in the spirit of adaptive conformal inference
   (Gibbs and Candès 2021). For ``robust`` those shares may be poison, so the scale follows the
   share below 10 %, of which ``UNEXPLAINED`` may be, and the others' say is small.
4. *Break*: when nearly a third of ordinary events fall below 1 % at once, the world has changed
   (a column came alive, an upstream unit changed), and holding everybody back would be an outage
   that also starves the baselines of the new normal. The channel is suspended until its reference
   has caught up. Attackers who could cause this would have to be a third of all traffic, from
   sources that nothing speaks against. :mod:`monitor.decide.world`, which sees the sources, mostly
   comes before it, and its p-values are what is measured here.

What is ordinary is decided by an event's context, never by its own score: dropping what scores
high truncates the reference, which lowers the threshold, which drops more (see the README).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from monitor.core.types import BoolArray, FloatArray, IntArray
from monitor.sketches.tails import ROBUST_QUANTILES, bounded, pareto, shares_below, weibull

TAIL_SHARE = 0.05
MAX_EXPONENT = 2.0
UNEXPLAINED = 0.03
MAX_BODY_RATE, MAX_POWER = 0.6, 1.15
BODY_HALF_LIFE = 250.0
IMPOSSIBLE, LUMP = 3e-3, 1e-4
SPARSE_SCALE, SPARSE_YOUNG, SPARSE_OLD = (1.0, 4.0), (1.5, 1e-3), (1.02, 5e-5)
BODY, BODY_KNOTS = 0.1, 1024
LOG_BODY = math.log(BODY)
LARGEST_SHUT_OUT, SHUT_OUT_HALF_LIFE = 0.2, 512.0
LEVELS = np.array([0.01, 0.001, 0.0001])
HALF_LIVES = np.array([1500.0, 6000.0, 24_000.0])
MIN_CORRECTION = np.array([0.5, 0.5, 0.5])
MAX_CORRECTION = np.array([3.0, 6.0, 12.0])
MAX_ROBUST_CORRECTION = np.array([2.0, 4.0, 8.0])
YOUNG_WINDOWS, YOUNG_LUMP = 2, 1e-8
TOP_SHARE, TOP_GROWTH = 0.003, 1.2
YOUNG_REACH, BEYOND_REACH = 0.5, 0.1
MAX_YOUNG_CORRECTION = np.array([4.0, 16.0, 48.0])
GRID = np.array([1.0, 2.0, 3.0, 4.0])
BREAK_AT, RESUME_AT, BREAK_HALF_LIFE = 0.3, 0.05, 128.0
GAIN_HALF_LIVES = np.append(HALF_LIVES, BREAK_HALF_LIFE)


@dataclass(frozen=True, slots=True)
class Read:
    """p-values float64[n] by the fit alone, moved with the body, and ``p`` with all corrections."""

    fitted: FloatArray
    moved: FloatArray
    p: FloatArray

    def rows(self, rows: IntArray) -> Read:
        """Those of ``rows`` int64[m]."""
        return Read(self.fitted[rows], self.moved[rows], self.p[rows])


@dataclass(frozen=True, slots=True)
class Reference:
    """The scores of recent ordinary traffic, the tail fitted to them, and how it held.

    Attributes
    ----------
    ring
        float64[w], the last w reference scores, oldest overwritten first.
    seen
        Number of scores ever put in.
    fitted
        float64[m], the scores at the last fit, sorted; thinned, where the tail has a law.
    fitted_at
        ``seen`` at the last fit.
    robust
        Which tail is fitted.
    smallest_scale, largest_scale
        Bounds on the tail's scale where the score has a known law, else 0 and infinity.
    threshold, scale, shape, above
        The tail starts at ``threshold``, which a share ``above`` of the reference exceeds.
        ``shape`` is Pareto's, or the exponent of the robust tail.
    rate
        float64[3], running share of ordinary events whose uncorrected p-value was ≤ LEVELS.
    alarm
        The same share for 1 %, over the last hundred events or so.
    suspended
        True while ``alarm`` is too high to be anything but a change of the world.
    young_until
        Before ``seen`` has got here, what surprises is rather our ignorance than an attack: robust
        tails are corrected by what was measured, nearly whatever it is.
    body_rate, shut_out
        Robust tails: running share of ordinary events at or below 10 % by the fit alone, and of
        those not learned because they seemed impossible.
    """

    ring: FloatArray
    seen: int
    fitted: FloatArray
    fitted_at: int
    robust: bool
    smallest_scale: float
    largest_scale: float
    threshold: float
    scale: float
    shape: float
    above: float
    rate: FloatArray
    alarm: float
    suspended: bool
    young_until: int
    body_rate: float
    shut_out: float

    @classmethod
    def empty(
        cls,
        window: int = 4096,
        *,
        robust: bool = False,
        scale_bounds: tuple[float, float] = (0.0, np.inf),
    ) -> Reference:
        """No scores yet, room for ``window``."""
        low, high = scale_bounds
        none = np.empty(0)
        ring = np.zeros(window)
        return cls(
            ring=ring,
            seen=0,
            fitted=none,
            fitted_at=0,
            robust=robust,
            smallest_scale=low,
            largest_scale=high,
            threshold=0.0,
            scale=1.0,
            shape=1.0,
            above=1.0,
            rate=LEVELS.copy(),
            alarm=0.01,
            suspended=False,
            young_until=YOUNG_WINDOWS * window,
            body_rate=BODY,
            shut_out=0.0,
        )

    def rejuvenated(self) -> Reference:
        """After a change of what scores mean, such as a column that came alive."""
        return replace(self, young_until=self.seen + YOUNG_WINDOWS * len(self.ring))

    @property
    def young(self) -> bool:
        """Whether little is known yet of what is ordinary."""
        return self.seen < self.young_until

    @property
    def ignorant(self) -> bool:
        """Whether a dense score has so little past that its tail is whatever was measured."""
        return self.young and not self.sparse

    @property
    def paced(self) -> bool:
        """Whether the top of the scores is learned at a bounded pace."""
        return not (self.robust or self.young)

    @property
    def ready(self) -> bool:
        """Whether a tail has been fitted, and holds."""
        return len(self.fitted) > 0 and not self.suspended

    def p_value(self, score: FloatArray, *, discrete: bool = False) -> FloatArray:
        """float64[n] in (0, 1]: the share of ordinary traffic that scores at least ``score``.

        With ``discrete`` the tail is empirical: nothing is interpolated between atoms.
        """
        return self.read(score, discrete=discrete).p

    def read(self, score: FloatArray, *, discrete: bool = False) -> Read:
        """The p-values of ``score`` float64[n], with what :meth:`admit` needs of them."""
        fitted = self._fitted_p(score, discrete)
        moved = self._moved(fitted, discrete)
        return Read(fitted, moved, self._corrected(moved))

    @property
    def law_known(self) -> bool:
        """Whether the score's tail is exponential by theory, within known bounds of its scale."""
        return self.robust and bool(np.isfinite(self.largest_scale))

    def _moved(self, p: FloatArray, discrete: bool) -> FloatArray:
        """By the fit, and the movement of the body since."""
        if not self.robust or discrete:
            return p
        rate = max(BODY, self.body_rate - UNEXPLAINED) if self.body_rate > BODY else self.body_rate
        power = math.log(min(max(rate, 0.5 * BODY), MAX_BODY_RATE)) / LOG_BODY
        return bounded(p ** min(power, MAX_POWER), 1.0)

    def _fitted_p(self, score: FloatArray, discrete: bool) -> FloatArray:
        m = len(self.fitted)
        if discrete:
            # Atoms at the bottom, where most scores are, need no search: all others are as high.
            p: FloatArray = np.ones(len(score))
            rows = np.flatnonzero(score > self.fitted[0])
            p[rows] = self._body_p(score[rows], m)
            return p
        # All are searched, though the tail has its law: picking the others takes longer.
        p = self._body_p(score, m)
        tail = np.flatnonzero(score > self.threshold)
        excess = (score[tail] - self.threshold) / self.scale
        if self.robust:
            survival = np.exp(-(excess**self.shape))
        elif self.shape < 1e-6:
            survival = np.exp(-excess)
        else:
            survival = (1.0 + self.shape * excess) ** (-1.0 / self.shape)
        p[tail] = self.above * survival
        return bounded(p, 1.0)

    def _body_p(self, score: FloatArray, m: int) -> FloatArray:
        """float64[n]: the share of the ``m`` fitted scores that are as high."""
        above = m - np.searchsorted(self.fitted, score, side="left")
        return np.asarray((above + 1.0) / (m + 1.0))

    def _corrected(self, p: FloatArray) -> FloatArray:
        tail = (p < BODY).nonzero()[0]
        if not len(tail):
            return p
        most = MAX_CORRECTION
        if self.robust:
            most = MAX_YOUNG_CORRECTION if self.ignorant else MAX_ROBUST_CORRECTION
        factor = np.log10(np.minimum(np.maximum(self.rate / LEVELS, MIN_CORRECTION), most))
        out, low = p.copy(), p[tail]
        shift = np.interp(-np.log10(low), GRID, np.append(0.0, factor))
        out[tail] = bounded(low * 10.0**shift, BODY)
        if self.ignorant and not self.law_known:
            # So few scores cannot speak of much rarer ones: beyond what they reach, p goes on
            # falling, for the order, but hardly.
            age = self.seen + YOUNG_WINDOWS * len(self.ring) - self.young_until
            reach = YOUNG_REACH / max(age, 1)
            beyond = (out < reach).nonzero()[0]
            out[beyond] = reach * (out[beyond] / reach) ** BEYOND_REACH
        return out

    def admit(
        self,
        score: FloatArray,
        *,
        discrete: bool = False,
        read: Read | None = None,
        every: int = 1024,
        least: int = 256,
    ) -> Reference:
        """With the ``score`` of ordinary events added.

        The tail is fitted anew after ``every`` additions, first after ``least``. ``read`` is what
        :meth:`read` said of these scores, where that is known.
        """
        if not len(score):
            return self
        kept, changes = self.worth(score, discrete=discrete, read=read)
        return self.put(kept, changes, discrete=discrete, every=every, least=least)

    def worth(
        self, score: FloatArray, *, discrete: bool = False, read: Read | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Those of the ``score`` that may be learned, and the rates after them, for :meth:`put`."""
        changes: dict[str, Any] = {}
        if len(self.fitted):
            read = self.read(score, discrete=discrete) if read is None else read
            changes = self._measured(read)
            if self.sparse:
                growth, pace = SPARSE_YOUNG if self.young else SPARSE_OLD
                pace += growth * float((self.ring > self.threshold).mean())
                score = self._paced(score, score > self.threshold, pace)
            elif self.paced and not discrete and changes["alarm"] < LARGEST_SHUT_OUT:
                score = self._paced(score, read.fitted <= TOP_SHARE, TOP_GROWTH * TOP_SHARE)
            elif self.robust:
                possible = read.p > IMPOSSIBLE
                gain = 1.0 - 0.5 ** (len(score) / SHUT_OUT_HALF_LIFE)
                share = 1.0 - np.count_nonzero(possible) / len(possible)
                out = self.shut_out + gain * (share - self.shut_out)
                changes["shut_out"] = out
                if out < LARGEST_SHUT_OUT:
                    score = score[possible]
        return score, changes

    def put(
        self,
        score: FloatArray,
        changes: dict[str, Any],
        *,
        discrete: bool = False,
        every: int = 1024,
        least: int = 256,
    ) -> Reference:
        """With ``score`` in the ring, the ``changes`` made, and the tail fitted when it is time."""
        count, window = len(score), len(self.ring)
        ring = self.ring.copy()
        kept = score[-window:]
        start = (self.seen + count - len(kept)) % window
        straight = min(len(kept), window - start)
        ring[start : start + straight] = kept[:straight]
        ring[: len(kept) - straight] = kept[straight:]
        seen = self.seen + count
        changes = {**changes, "ring": ring, "seen": seen}
        if seen - self.fitted_at >= (every if len(self.fitted) else least):
            body_rate = changes.get("body_rate", self.body_rate)
            # Half of the movement is in the new fit's window.
            changes |= {**self._fit(ring, seen, discrete), "body_rate": 0.5 * (body_rate + BODY)}
        return replace(self, **changes)

    @property
    def sparse(self) -> bool:
        """Whether nearly all scores are one atom, the lowest, and only what is above it is fitted.

        There is then no body from which to extrapolate, and no telling a rare honest score from
        the first poison by its size.
        """
        return bool(
            self.robust
            and len(self.fitted)
            and self.above <= 1.0 - ROBUST_QUANTILES[-1]
            and self.threshold == self.fitted[0]
        )

    def _paced(self, score: FloatArray, high: BoolArray, pace: float) -> FloatArray:
        """``score`` without the highest of the ``high`` ones that are more than the share ``pace``.

        The top may thicken a little from window to window, as it does in a drift; an attack that
        lasts would else buy itself all that it may. The lowest are taken first.
        """
        may = int(pace * (self.seen + len(score))) - int(pace * self.seen)
        rows = np.flatnonzero(high)
        keep = np.ones(len(score), dtype=bool)
        keep[rows[np.argsort(score[rows], kind="stable")[may:]]] = False
        return score[keep]

    def _measured(self, read: Read) -> dict[str, Any]:
        """The rates of layers 3 and 4 after ordinary events."""
        plain, p = read.fitted, read.moved
        met = shares_below(p, LEVELS)
        gain = 1.0 - 0.5 ** (len(p) / GAIN_HALF_LIVES)
        alarm = self.alarm + float(gain[-1]) * (float(met[0]) - self.alarm)
        suspended = alarm > (RESUME_AT if self.suspended else BREAK_AT)
        body = self.body_rate
        if self.robust:
            follow = 1.0 - 0.5 ** (len(p) / BODY_HALF_LIFE)
            body += follow * (np.count_nonzero(plain <= BODY) / len(plain) - body)
            if not self.law_known:
                # A lump far beyond the tail is poison or a new world, and no misfit of the tail.
                tail = p[p > (YOUNG_LUMP if self.ignorant else LUMP)]
                if len(tail):
                    met = shares_below(tail, LEVELS)
        # What was measured while the world changed says nothing about the world after it.
        rate = self.rate if suspended else self.rate + gain[:-1] * (met - self.rate)
        return {"rate": rate, "alarm": alarm, "suspended": suspended, "body_rate": body}

    def _fit(self, ring: FloatArray, seen: int, discrete: bool) -> dict[str, Any]:
        """The tail of the scores in ``ring``."""
        ordered = np.sort(ring[: min(seen, len(ring))])
        least = max(1e-9, 1e-3 * float(ordered[-1] - ordered[0]))
        if self.robust and ordered[int(ROBUST_QUANTILES[-1] * (len(ordered) - 1))] <= ordered[0]:
            # Nearly all scores are one atom: what there is above it is all there is to fit.
            threshold, shape = float(ordered[0]), 1.0
            high = ordered[ordered > threshold]
            scale = float(np.median(high) - threshold) / np.log(2.0) if len(high) else 0.0
            scale = float(np.clip(scale, *SPARSE_SCALE))
        elif self.robust:
            threshold, scale, shape = weibull(ordered, 1.0 if self.law_known else MAX_EXPONENT)
        else:
            threshold = float(ordered[int((1.0 - TAIL_SHARE) * (len(ordered) - 1))])
            scale, shape = pareto(ordered[ordered > threshold] - threshold)
        above = (len(ordered) - np.searchsorted(ordered, threshold, "right") + 1.0) / (
            len(ordered) + 1.0
        )
        step = 1 if discrete else max(1, len(ordered) // BODY_KNOTS)
        return {
            "fitted": ordered[::step].copy(),
            "fitted_at": seen,
            "threshold": threshold,
            "scale": min(max(scale, least, self.smallest_scale), self.largest_scale),
            "shape": shape,
            "above": float(above),
        }
