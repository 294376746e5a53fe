"""Learning, storing and applying the schema and its transforms."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.decode import Decoder
from monitor.core.errors import RejectCode
from monitor.core.events import Features
from monitor.core.labels import LabelTable
from monitor.core.limits import Limits
from monitor.core.schema import Schema
from monitor.core.transform import G_LIMIT, MAX_KNOTS, Z_LIMIT, Transform
from monitor.core.types import RawBatch
from monitor.state import codec

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
CELLS = st.none() | FLOATS | st.booleans() | st.text(max_size=5)
OBJECTS = st.dictionaries(st.sampled_from("abcde"), CELLS, min_size=1, max_size=5)
ROWS = st.lists(OBJECTS, min_size=1, max_size=30) | st.lists(
    st.lists(FLOATS, min_size=1, max_size=3), min_size=1, max_size=30
)


@settings(max_examples=100, deadline=None)
@given(ROWS, ROWS)
def test_schema_survives_storage(sample: list[Features], rows: list[Features]) -> None:
    schema = Schema.learn(sample)
    text = orjson.dumps(schema.to_dict(), option=orjson.OPT_SERIALIZE_NUMPY)
    stored = codec.unpack(codec.pack(schema.to_dict()))
    for again in (Schema.from_dict(orjson.loads(text)), Schema.from_dict(stored)):
        assert again.columns == schema.columns and again.kinds == schema.kinds
        x, bad = schema.encode(rows)
        y, bad_again = again.encode(rows)
        np.testing.assert_array_equal(x, y)
        assert bad == bad_again and np.isfinite(x).all() and x.shape[1] == schema.n_columns
        for ours, theirs in zip(schema.transform(x), again.transform(y), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert np.isfinite(ours).all()


def test_an_unknown_version_is_refused() -> None:
    stored = Schema.learn([[1.0]]).to_dict() | {"version": 99}
    with pytest.raises(ValueError, match="version 99"):
        Schema.from_dict(stored)


@settings(max_examples=200, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=80), st.lists(FLOATS, min_size=2, max_size=40))
def test_transform_is_finite_and_monotone(sample: list[float], values: list[float]) -> None:
    transform = Transform.learn(np.array(sample)[:, None])
    x = np.sort(np.array(values + sample + [1.7e308, -1.7e308, 5e-324, -0.0]))[:, None]
    before = x.copy()
    g, z = transform.apply(x)
    np.testing.assert_array_equal(x, before)
    assert np.abs(g).max() <= G_LIMIT and np.abs(z).max() <= Z_LIMIT
    assert (np.diff(g, axis=0) >= -1e-9).all() and (np.diff(z, axis=0) >= -1e-9).all()
    for i in range(0, len(x), 7):
        alone = transform.apply(x[i : i + 1])
        assert alone[0][0, 0] == g[i, 0] and alone[1][0, 0] == z[i, 0]


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.0, 1e300, 1e-300])
def test_constant_column(constant: float) -> None:
    transform = Transform.learn(np.full((512, 1), constant))
    x = np.array([[constant], [constant + max(1.0, abs(constant))]])
    g, z = transform.apply(x)
    if abs(constant) < 1e150:
        assert g[0, 0] == z[0, 0] == 0.0
    assert g[1, 0] == z[1, 0] == 0.0


def test_normal_sample_gives_normal_scores_and_skew_is_undone() -> None:
    rng = np.random.default_rng(1)
    base = rng.standard_normal((512, 1))
    x = np.hstack([base, np.exp(3 * base), np.round(base)])
    transform = Transform.learn(x)
    g, z = transform.apply(x)
    assert np.abs(g[:, 0] - base[:, 0]).max() < 0.5
    np.testing.assert_allclose(g[:, 1], g[:, 0], atol=0.1)
    assert transform.count.max() <= MAX_KNOTS and abs(g[:, 2].mean()) < 0.05
    assert np.abs(z).max() <= 8.0


def test_a_few_absurd_values_do_not_swallow_a_column() -> None:
    x = np.arange(512.0)[:, None]
    x[5] = 1e300
    z = Transform.learn(x).apply(np.array([[10.0], [500.0]]))[1]
    assert z[1, 0] - z[0, 0] > 2.0


def test_majority_decides_and_the_rest_is_left_out() -> None:
    sample: list[Features] = [[1.0, 2.0]] * 5 + [[1.0]] * 2 + [{"a": 1.0}]
    assert Schema.learn(sample).columns == ("f0", "f1")
    objects: list[Features] = [{"n": 1.0, "t": "x"} for _ in range(5)]
    objects.append({"n": "oops", "t": 3.0, "late": True})
    schema = Schema.learn(objects)
    assert schema.columns == ("n", "t=x", "t=3", "t=(other)", "late")
    assert schema.kinds == ("numeric", "categorical", "numeric")


def test_categories_are_the_most_frequent_and_rare_ones_differ() -> None:
    texts = ["b"] * 5 + ["a"] * 5 + ["c"] * 9 + ["d"]
    schema = Schema.learn([{"t": text} for text in texts], Limits(max_categories=3))
    assert schema.columns == ("t=c", "t=a", "t=b", "t=(other)")
    x, bad = schema.encode([{"t": t} for t in ("a", "d", "e", "e", None, "é\0")])
    assert not bad and x[0].tolist() == [0, 1, 0, 0] and x[4].tolist() == [0, 0, 0, 0]
    others = x[[1, 2, 5], 3]
    assert x[2, 3] == x[3, 3] and len(set(others.tolist())) == 3
    assert ((others > 0.5) & (others < 1.5)).all()
    swapped = Schema.learn([{"t": text} for text in reversed(texts)], Limits(max_categories=3))
    assert swapped.columns == schema.columns


def test_too_many_names_keep_the_frequent_ones_and_long_names_are_ignored() -> None:
    sample: list[Features] = [{"x": 1.0, "y": 2.0}] * 3
    sample.append({f"junk{i}": 1.0 for i in range(4)})
    sample.append({"n" * 1000: 1.0})
    assert Schema.learn(sample, Limits(max_features=2)).columns == ("x", "y")


def test_fast_and_general_paths_agree() -> None:
    rng = np.random.default_rng(2)
    rows: list[Features] = []
    for i, v in enumerate(rng.standard_normal(64)):
        rows.append({"a": float(v), "t": "xyz"[i % 3], "b": bool(i % 2)})
    schema = Schema.learn(rows)
    fast, bad = schema.encode(rows)
    slow, _ = schema.encode([*rows, {"a": None}])
    assert not bad
    np.testing.assert_array_equal(fast, slow[:-1])


def test_one_source_cannot_widen_the_stream_for_everybody() -> None:
    def event(i: int, source: str, **more: float) -> bytes:
        features = {"a": float(i), "b": float(i % 7), **more}
        base = {"id": f"e{i}", "ts": 1.0 + i, "source": source, "label": True}
        return orjson.dumps({**base, "features": features})

    wide = {f"n{i}": float(i) for i in range(4000)}
    ordinary = [event(i, f"s{i % 9}") for i in range(300)]
    rare = [event(300, "s1", seldom=1.0), event(301, "s2", seldom=2.0)]
    samples = [event(400, "s0", **wide), *ordinary, *rare, event(401, "s0", **wide)]
    decoder = Decoder()
    parsed = decoder.parse(RawBatch.of(samples))
    schema = Schema.learn(parsed)
    assert schema.columns == ("a", "b", "seldom")
    decoded = decoder.columns(parsed, schema, LabelTable())
    assert decoded.reject[[0, -1]].tolist() == [RejectCode.UNKNOWN_FEATURE] * 2
    # Alone, or often enough, a source's names are the stream's.
    only = decoder.parse(RawBatch.of([event(1, "s", x=1.0), *[event(i, "s") for i in range(200)]]))
    assert Schema.learn(only).columns == ("a", "b", "x")
    often = [event(i, f"s{i % 9}", **({"own": 1.0} if i % 9 == 4 else {})) for i in range(200)]
    assert "own" in Schema.learn(decoder.parse(RawBatch.of(often))).columns
