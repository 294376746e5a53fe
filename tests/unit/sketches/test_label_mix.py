"""Evidence that a source pushes a label: what is left out of the reckoning is nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import betaln

from monitor.sketches.label_mix import BUCKETS, LIGHTER, PUSHED, LabelMix


def _every_one(mix: LabelMix, counts: np.ndarray) -> np.ndarray:
    rest = counts.sum(axis=1, keepdims=True) - counts
    a, b = mix.share * mix.precision, (1.0 - mix.share) * mix.precision
    pushed = betaln(counts + PUSHED[0], rest + PUSHED[1]) - betaln(*PUSHED)
    nats = np.maximum(pushed - (betaln(counts + a, rest + b) - betaln(a, b)), 0.0)
    nats[(counts == 0.0) & (a < LIGHTER * PUSHED[0]) & (b >= PUSHED[1])] = 0.0
    return nats


def test_labels_left_out_early_have_no_evidence() -> None:
    rng = np.random.default_rng(3)
    spoke = 0
    for _ in range(60):
        share = np.clip(rng.dirichlet(np.full(BUCKETS, rng.choice([0.05, 0.5, 5.0]))), 1e-4, 0.9999)
        precision = np.exp(rng.uniform(np.log(0.11), np.log(499.0), BUCKETS))
        mix = replace(LabelMix.empty(), share=share, precision=precision)
        kinds = rng.dirichlet(np.full(BUCKETS, rng.choice([0.02, 0.3])), 80)
        counts = rng.poisson(rng.choice([2.0, 30.0, 300.0], size=(80, 1)) * kinds)
        counts = counts * 0.5 ** rng.random((80, BUCKETS))
        wanted = _every_one(mix, counts)
        np.testing.assert_array_equal(mix.nats(counts), wanted)
        spoke += int((wanted > 0.0).sum())
    assert spoke > 1000
