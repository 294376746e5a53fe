"""Bytes to columns: what is refused and why, and that a bad record costs only itself."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.decode import Decoded, Decoder
from monitor.core.diagnose import depth
from monitor.core.errors import RejectCode
from monitor.core.labels import LabelTable
from monitor.core.limits import Limits
from monitor.core.names import is_ambiguous
from monitor.core.numbers import crowded
from monitor.core.provenance import Outcome
from monitor.core.schema import Schema, SchemaSpec
from monitor.core.types import RawBatch

BASE: dict[str, Any] = {
    "id": "e1",
    "ts": 1.7e9,
    "source": "acct-1",
    "label": "legit",
    "features": [1.0, 2.0],
}
SMALL = Limits(max_message_bytes=4096, max_features=4, max_labels=3, max_id_chars=8)


def event(**fields: Any) -> bytes:
    return orjson.dumps({**BASE, **fields})


def without(name: str) -> bytes:
    return orjson.dumps({key: value for key, value in BASE.items() if key != name})


def raw_json(features: str = "[1,2]", extra: str = "") -> bytes:
    return (f'{{"id":"e1","ts":1,"source":"s","label":"l","features":{features}{extra}}}').encode()


ARRAY_SCHEMA = Schema.learn([[float(i), float(i * i)] for i in range(32)])
OBJECT_SCHEMA = Schema.learn([{"a": float(i), "card": "visa"} for i in range(32)])


def decode(
    values: list[bytes],
    schema: Schema = ARRAY_SCHEMA,
    limits: Limits = SMALL,
    labels: LabelTable | None = None,
) -> Decoded:
    decoder = Decoder(limits)
    return decoder.columns(decoder.parse(RawBatch.of(values)), schema, labels or LabelTable())


CASES: list[tuple[bytes, RejectCode, str]] = [
    (b'{"id":"\xff"}', RejectCode.NOT_UTF8, "byte 7 is 0xff"),
    (raw_json(extra=',"meta":"').replace(b'"meta":"', b'"zzz":"\xff"'), RejectCode.NOT_UTF8, "UTF"),
    (b"", RejectCode.NOT_JSON, "empty"),
    (b" \n", RejectCode.NOT_JSON, "empty"),
    (b"{not json", RejectCode.NOT_JSON, "not valid JSON"),
    (event() + b" {}", RejectCode.NOT_JSON, "trailing"),
    (b"\xef\xbb\xbf" + event(), RejectCode.NOT_JSON, "byte-order mark"),
    (raw_json(extra=',"meta":"\\ud800"'), RejectCode.NOT_JSON, "not valid JSON"),
    (b"[1,2]", RejectCode.NOT_AN_OBJECT, "an array"),
    (b"null", RejectCode.NOT_AN_OBJECT, "null"),
    (event(meta="x" * 5000), RejectCode.TOO_LARGE, "at most 4096"),
    (raw_json(extra=',"meta":' + "[" * 8 + "]" * 8), RejectCode.TOO_DEEP, "8 levels"),
    (raw_json(extra=',"zzz":' + "[" * 8 + "]" * 8), RejectCode.TOO_DEEP, "8 levels"),
    *[(without(name), RejectCode.MISSING_FIELD, f"{name} is missing") for name in BASE],
    *[(event(**{name: None}), RejectCode.MISSING_FIELD, f"{name} is null") for name in BASE],
    (event(id=""), RejectCode.MISSING_FIELD, "id is empty"),
    (event(source=""), RejectCode.MISSING_FIELD, "source is empty"),
    (event(id=7), RejectCode.WRONG_TYPE, "id is a number, 7"),
    (event(source=[]), RejectCode.WRONG_TYPE, "source is an array"),
    (event(label=1.5), RejectCode.WRONG_TYPE, "label is a number, 1.5"),
    (event(ts=True), RejectCode.WRONG_TYPE, "ts is a boolean"),
    (event(ts="yesterday"), RejectCode.WRONG_TYPE, "RFC 3339"),
    (event(ts="2024-05-01T10:00:00"), RejectCode.WRONG_TYPE, "without a time zone"),
    (event(features="1,2"), RejectCode.WRONG_TYPE, "features is a text"),
    (event(features=[1, True]), RejectCode.WRONG_TYPE, "features[1] is a boolean"),
    (event(features=[1, None]), RejectCode.WRONG_TYPE, "features[1] is null"),
    (event(features={"a": [1]}), RejectCode.WRONG_TYPE, 'features."a" is an array'),
    (event(subject=1), RejectCode.WRONG_TYPE, "subject"),
    (event(prediction="high"), RejectCode.WRONG_TYPE, "prediction"),
    (event(prediction={"a": None}), RejectCode.WRONG_TYPE, "prediction"),
    (event(gradient={"a": 1}), RejectCode.WRONG_TYPE, "gradient"),
    (event(weight="1"), RejectCode.WRONG_TYPE, "weight"),
    (raw_json("[1,NaN]"), RejectCode.NON_FINITE, "features[1]"),
    (raw_json("[-Infinity,1]"), RejectCode.NON_FINITE, "features[0]"),
    (raw_json("[1,1e999]"), RejectCode.NON_FINITE, "features[1]"),
    (raw_json('{"a":1' + "0" * 400 + "}"), RejectCode.NON_FINITE, "features."),
    (raw_json(extra=',"label":"x"'), RejectCode.DUPLICATE_NAME, '"label" stands twice'),
    (raw_json(extra=',"lab\\u0065l":"x"'), RejectCode.DUPLICATE_NAME, '"label" stands twice'),
    (raw_json('{"a":1,"b" :2,"a":3}'), RejectCode.DUPLICATE_NAME, '"a" stands twice'),
    (raw_json(extra=',"meta":[{"k":1,"k":{}}]'), RejectCode.DUPLICATE_NAME, '"k" stands twice'),
    (raw_json(extra=',"other":1,"other":2'), RejectCode.DUPLICATE_NAME, '"other" stands twice'),
    (raw_json(extra=',"subject":"a:b","subject":null'), RejectCode.DUPLICATE_NAME, '"subject"'),
    (raw_json(extra=',"meta":{"m":[1e999]}'), RejectCode.NON_FINITE, "meta.m[0]"),
    (raw_json(extra=',"weight":1e999'), RejectCode.NON_FINITE, "weight"),
    (event(features=[1.0]), RejectCode.WRONG_DIMENSION, "has 1 numbers; this stream has 2"),
    (event(features=[]), RejectCode.WRONG_DIMENSION, "empty"),
    (event(features={}), RejectCode.WRONG_DIMENSION, "empty"),
    (event(features={"f0": 1}), RejectCode.WRONG_DIMENSION, "an array of 2 numbers"),
    (event(gradient=[]), RejectCode.WRONG_DIMENSION, "gradient"),
    (event(features=[1.0] * 5), RejectCode.TOO_MANY_FEATURES, "at most 4"),
    (event(id="x" * 9), RejectCode.ID_TOO_LONG, "9 characters"),
    (event(source="x" * 257), RejectCode.SOURCE_TOO_LONG, "257 characters"),
    (event(ts=-1), RejectCode.TIMESTAMP_OUT_OF_RANGE, "from 0"),
    (event(ts=1.7e12), RejectCode.TIMESTAMP_OUT_OF_RANGE, "milliseconds"),
    (event(ts="1969-12-31T23:59:59Z"), RejectCode.TIMESTAMP_OUT_OF_RANGE, "1969"),
    (event(ts="9999-12-31T23:59:59Z"), RejectCode.TIMESTAMP_OUT_OF_RANGE, "9999"),
    (event(ts=10**19), RejectCode.TIMESTAMP_OUT_OF_RANGE, "ts"),
    (event(label=""), RejectCode.OUT_OF_RANGE, "label is empty"),
    (event(label="x" * 257), RejectCode.OUT_OF_RANGE, "257 characters"),
    (event(label=2**63), RejectCode.OUT_OF_RANGE, "64 bits"),
    (event(subject="x" * 257), RejectCode.OUT_OF_RANGE, "subject"),
    (event(weight=0), RejectCode.OUT_OF_RANGE, "above 0"),
    (event(weight=-1), RejectCode.OUT_OF_RANGE, "above 0"),
]


@pytest.mark.parametrize(("value", "code", "words"), CASES)
def test_every_fault_has_a_code_and_a_sentence(value: bytes, code: RejectCode, words: str) -> None:
    decoded = decode([event(), value, event(id="e2")])
    assert RejectCode(decoded.reject[1]) == code, decoded.detail
    assert words in decoded.detail[1]
    assert len(decoded.detail[1]) < 250 and decoded.detail[1].isprintable()
    assert decoded.row.tolist() == [0, 2] and decoded.events.ids == ["e1", "e2"]


def test_every_code_is_reachable() -> None:
    elsewhere = {RejectCode.OK, RejectCode.UNKNOWN_FEATURE, RejectCode.LABEL_LIMIT}
    elsewhere |= {RejectCode[outcome.name] for outcome in Outcome if outcome.is_refusal}
    assert {code for _, code, _ in CASES} | elsewhere == set(RejectCode)


def test_unknown_feature_and_text_where_a_number_belongs() -> None:
    values = [
        event(features=f) for f in ({"a": 1, "zap": 2}, {"a": "1"}, {"card": 4, "a": None}, [1])
    ]
    decoded = decode(values, OBJECT_SCHEMA)
    words = [RejectCode(code).word for code in decoded.reject]
    assert words == ["unknown_feature", "wrong_type", "ok", "wrong_dimension"]
    assert '"zap"' in decoded.detail[0] and "text" in decoded.detail[1]
    assert "object" in decoded.detail[3]
    assert decoded.events.columns == ("a", "card=visa", "card=(other)")
    assert decoded.events.x[0, 0] == 15.0  # the median
    assert 0.5 < decoded.events.x[0, 2] < 1.5


def test_label_limit_and_type_tags() -> None:
    labels: list[Any] = [True, 1, "1", "new", True, 1, "1"]
    decoded = decode([event(label=label) for label in labels])
    assert decoded.reject.tolist() == [0, 0, 0, RejectCode.LABEL_LIMIT, 0, 0, 0]
    assert decoded.events.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert decoded.events.label_names == ("true", "1", "1 (str)")
    assert [type(v) for v in decoded.events.labels] == [bool, int, str] * 2
    again = LabelTable.from_list(orjson.loads(orjson.dumps(decoded.labels.to_list())))
    assert again == decoded.labels and again.find([1, True]).tolist() == [1, 0]


def test_a_refused_event_does_not_add_its_label() -> None:
    decoded = decode([event(label="bad", features=[1.0]), event(label="good")])
    assert decoded.labels.values == ("good",)


def test_times() -> None:
    stamps: list[Any] = [1, 1.25, "1970-01-01T01:00:01.000001+01:00", 1_700_000_000.5]
    decoded = decode([event(ts=ts) for ts in stamps])
    expected = [10**9, 1_250_000_000, 1_000_001_000, 1_700_000_000_500_000_000]
    assert decoded.events.time_ns.tolist() == expected


def test_optional_columns() -> None:
    values = [
        event(label=True, prediction=0.9, gradient=[1, 2, 3], weight=2, subject="item"),
        event(label="spam", prediction={"spam": 0.25, "ham": 0.75}, meta={"any": [1, None]}),
        event(label=1, prediction=[0.2, 0.8], gradient=[1, 2]),
        event(label="x", prediction=0.5),
    ]
    decoded = decode(values, limits=Limits())
    events = decoded.events
    assert decoded.reject.tolist() == [0, 0, RejectCode.WRONG_DIMENSION, 0]
    assert "gradient has 2 numbers; this stream has 3" in decoded.detail[2]
    assert events.prediction is not None and events.gradient is not None
    np.testing.assert_array_equal(events.prediction, [0.9, 0.25, np.nan])
    np.testing.assert_array_equal(events.gradient, [[1, 2, 3], [np.nan] * 3, [np.nan] * 3])
    assert events.weight.tolist() == [2, 1, 1]
    assert events.subject[0] != 0 and events.subject[1:].tolist() == [0, 0]
    assert decoded.schema.gradient_dim == 3
    assert decode([event()]).events.gradient is None


def test_hashes_are_seeded_and_content_ignores_everything_but_features() -> None:
    values = [event(id="a", features=[0.0, 1]), event(id="b", label="q", features=[-0.0, 1])]
    parsed = Decoder().parse(RawBatch.of(values))
    one, two = (
        Decoder(hash_seed=seed).columns(parsed, ARRAY_SCHEMA, LabelTable()).events
        for seed in (0, 1)
    )
    assert one.content[0] == one.content[1] and one.id_hash[0] != one.id_hash[1]
    for name in ("content", "source", "id_hash"):
        assert getattr(one, name)[0] != getattr(two, name)[0]


def test_deep_and_huge_records_are_refused_quickly() -> None:
    deep = b"[" * 100_000
    quotes = b'{"id":"' + b'\\"' * 500_000
    values = [
        deep,
        b'{"meta":' + deep + b"]" * 100_000 + b"}",
        b'{"features":' + b'{"a":' * 100_000,
        b'"' + b"\\" * 1_000_001,
        quotes,
        b"x" * 10_000_000,
    ]
    start = time.process_time()
    decoded = decode(values, limits=Limits())
    assert time.process_time() - start < 2.0
    words = [RejectCode(code).word for code in decoded.reject]
    assert words == ["too_deep"] * 3 + ["not_json"] * 2 + ["too_large"]


def test_brackets_in_texts_are_not_depth() -> None:
    assert depth(b'{"a":"[[[[[[[[[[\\"[[["}') == 1
    assert decode([event(meta="[{" * 20), event(source="{" * 20)]).reject.tolist() == [0, 0]
    nested = raw_json(extra=',"meta":' + "[" * 7 + "]" * 7)
    assert decode([nested]).reject.tolist() == [0]


def test_nul_and_non_ascii_texts() -> None:
    decoded = decode([event(id="a\0", source="é", label="日本"), event(meta="ü")])
    assert decoded.reject.tolist() == [0, 0] and decoded.events.sources[0] == "é"


def test_integers_beyond_64_bits_are_numbers() -> None:
    assert decode([event(features=[2**53 + 1, 2**64 - 1])]).events.x[0, 1] == 2.0**64


def test_partial_of_refused_records() -> None:
    values = [event(label=2.5), raw_json("[NaN]"), b"nope", event(id="x" * 20)]
    partial = Decoder(SMALL).parse(RawBatch.of(values)).partial
    assert (partial[0].id, partial[0].source, partial[0].label) == ("e1", "acct-1", None)
    assert (partial[1].id, partial[1].label) == ("e1", "l")
    assert partial[2].id is None and partial[3].id == "x" * 7 + "…"


def test_an_empty_batch_and_a_batch_without_events() -> None:
    for values in ([], [b"no"]):
        decoded = decode(values)
        assert len(decoded.events) == 0 and decoded.events.x.shape == (0, 2)
        assert decoded.events.g.shape == (0, 2) and len(decoded.reject) == len(values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from([*BASE, "subject", "prediction", "gradient", "weight", "meta", "zzz"])
NEARLY = st.dictionaries(FIELDS, JSON, max_size=3).map(
    lambda fields: json.dumps({**BASE, **fields}).encode("utf-8", "surrogatepass")
)
ANYTHING = st.binary(max_size=60) | NEARLY | JSON.map(lambda v: json.dumps(v).encode())
MUTATED = st.tuples(st.integers(0, 90), st.binary(max_size=3)).map(
    lambda cut: event()[: cut[0]] + cut[1] + event()[cut[0] + 1 :]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ANYTHING | MUTATED, max_size=5))
def test_anything_is_judged_alone(values: list[bytes]) -> None:
    good = [event(id=f"g{i}", features=[i, -i]) for i in range(len(values) + 1)]
    mixed = [item for pair in zip(good, values, strict=False) for item in pair] + [good[-1]]
    decoded = decode(mixed)
    alone = [decode([value]) for value in mixed]
    assert decoded.reject[::2].tolist() == [0] * len(good)
    before = LabelTable()
    for row, single in enumerate(alone):
        if decoded.reject[row] == RejectCode.LABEL_LIMIT:
            continue
        assert decoded.reject[row] == single.reject[0]
        assert decoded.detail.get(row) == single.detail.get(0)
        assert "is not an event" not in decoded.detail.get(row, "")
    kept = [single.events for single in alone if len(single.events)]
    if RejectCode.LABEL_LIMIT not in decoded.reject:
        for name in ("x", "g", "z", "id_hash", "source", "subject", "content", "time_ns", "weight"):
            joined = np.concatenate([getattr(events, name) for events in kept])
            np.testing.assert_array_equal(getattr(decoded.events, name), joined, err_msg=name)
    assert np.isfinite(decoded.events.x).all() and not before.values


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 19), st.lists(st.sampled_from(["a", "b", "c", None]), min_size=20, max_size=20)
)
def test_columns_do_not_depend_on_how_a_stream_is_split(cut: int, cards: list[str | None]) -> None:
    rows = [{"a": i * 0.5 if i % 3 else None, "card": card} for i, card in enumerate(cards)]
    values = [event(id=f"e{i}", label=i % 4, features=row) for i, row in enumerate(rows)]
    decoder, table = Decoder(SMALL), LabelTable()
    whole = decoder.columns(decoder.parse(RawBatch.of(values)), OBJECT_SCHEMA, table)
    parts = []
    for start, stop in ((0, cut), (cut, 20)):
        raw = RawBatch.of(values[start:stop], start=start)
        parts.append(decoder.columns(decoder.parse(raw), OBJECT_SCHEMA, table))
        table = parts[-1].labels
    for name in ("offset", "x", "g", "z", "y", "content", "id_hash", "time_ns"):
        joined = np.concatenate([getattr(part.events, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole.events, name), joined, err_msg=name)
    assert whole.labels.values == table.values and whole.labels.owner == table.owner


def test_explicit_schema() -> None:
    spec = SchemaSpec(("amount", "mcc"), (False, True))
    schema = Schema.learn([{"amount": 1.0, "mcc": 5411.0}] * 4, spec=spec)
    assert schema.kinds == ("numeric", "categorical") and schema.n_columns == 3
    assert schema.columns[1] == "mcc=5411"
    numbered = Schema.learn([[1.0, 2.0]] * 4, spec=SchemaSpec(("0", "1"), (False, True)))
    assert numbered.layout.array and numbered.columns == ("f0", "f1=2", "f1=(other)")
    x, bad = numbered.encode([[3.0, 2.0]])
    assert x.tolist() == [[3.0, 1.0, 0.0]] and not bad
    empty = Schema.learn([], spec=spec)
    assert np.isfinite(empty.transform(empty.encode([{"amount": 1e300}])[0])[1]).all()


EDGE_NUMBERS = ["1e308", "-1.7976931348623157e308", "5e-324", "2.5E+300", "1e-0310"]


def test_numbers_that_are_costly_to_read_cost_no_time() -> None:
    for where in ("meta", "features", "unknown"):
        ordinary, hostile = (
            raw_json(f"[{text}]") if where == "features" else raw_json(extra=f',"{where}":[{text}]')
            for text in (",".join([number] * 4000) for number in ("1.5", "1e308"))
        )
        began = time.perf_counter()
        decode([ordinary] * 20)
        middle = time.perf_counter()
        decode([hostile] * 20)
        # The typed decoder alone takes 200 times as long for the second.
        assert time.perf_counter() - middle < 20 * (middle - began) + 0.1


@pytest.mark.parametrize("ts", ["5", '"2024-01-01T00:00:00Z"', "1.5e9"])
def test_crowded_records_are_read_as_others(ts: str) -> None:
    texts = [EDGE_NUMBERS[i % 5] for i in range(40)]
    value = b'{"id":"a","ts":%b,"source":"s","label":true,"features":[%b],"zz":0,"weight":2}'
    values = [value % (ts.encode(), ",".join(texts[:n]).encode()) for n in (8, 40)]
    assert crowded(values) == {1}
    few, many = Decoder().parse(RawBatch.of(values)).events
    assert many.features == [float(text) for text in texts]
    for name in ("id", "ts", "source", "label", "weight"):
        assert getattr(few, name) == getattr(many, name)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (raw_json("[" + "1e308," * 40 + "1e999]"), RejectCode.NON_FINITE),
        (raw_json("[" + "1e308," * 40 + "NaN]"), RejectCode.NON_FINITE),
        (raw_json("[" + "1e308," * 40 + '"x"]'), RejectCode.WRONG_TYPE),
        (raw_json("[" + "1e308," * 40 + "]"), RejectCode.NOT_JSON),
        (raw_json("[" + "1e308," * 40 + "[" * 20 + "]" * 21), RejectCode.TOO_DEEP),
        (raw_json("[" + "1e308," * 5000 + "1]"), RejectCode.TOO_MANY_FEATURES),
    ],
)
def test_crowded_records_are_refused_as_others(value: bytes, code: RejectCode) -> None:
    assert crowded([value]) == {0}
    parsed = Decoder().parse(RawBatch.of([value]))
    assert parsed.reject.tolist() == [code], parsed.detail


def test_crowded_looks_at_numbers_only() -> None:
    assert crowded([]) == crowded([b""]) == crowded([b"e"]) == crowded([b"1e30"] * 9) == set()
    assert crowded([b"feel " * 50, b"1e30 " * 50, b"0xe123 " * 50]) == set()
    assert crowded([b"x", b"1e308" * 16, b"", b"1E-308," * 15]) == {1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(':"\\{}[]a', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(':"\\a', max_size=3), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_names_that_stand_once_are_never_taken_for_two(meta: Any) -> None:
    value = event(meta=meta, subject='a:"b', features={"x:y": 1.0, 'q"': 2.0}, more=meta)
    assert not is_ambiguous(value)
    spaced = json.dumps(json.loads(value), indent=1).replace('":', '" :').encode()
    parsed = Decoder().parse(RawBatch.of([value, spaced]))
    assert set(parsed.reject.tolist()) <= {RejectCode.OK, RejectCode.TOO_DEEP}


def test_a_record_with_two_faults_is_refused_once_and_its_neighbours_are_not() -> None:
    deep = raw_json(extra=',"meta":' + "[" * 600 + "]" * 600 + ',"label":"x"')
    twice = raw_json(extra=',"label":"x"')
    values = [event(id="a"), deep, twice, event(id="b", ts="2024-01-01T00:00:00Z")]
    reject = Decoder().parse(RawBatch.of(values)).reject.tolist()
    assert reject == [0, RejectCode.TOO_DEEP, RejectCode.DUPLICATE_NAME, 0]


def test_one_odd_gradient_does_not_set_the_dimension() -> None:
    values = [event(id=str(i), gradient=[1.0] * (7 if i == 0 else 3)) for i in range(5)]
    decoded = decode(values)
    assert decoded.schema.gradient_dim == 3
    assert decoded.reject.tolist() == [RejectCode.WRONG_DIMENSION, 0, 0, 0, 0]
    assert Schema.learn(Decoder().parse(RawBatch.of(values))).gradient_dim == 3
