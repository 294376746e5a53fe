"""Laws of the injectors: what they say they changed is what they changed, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.errors import UsageError
from monitor.runtime.inject import (
    ATTACKS,
    IN_PLACE,
    PATTERNS,
    Attacked,
    Role,
    Stream,
    honest_sources,
    inject,
    with_gradients,
)

N = 900


def make(n: int = N, seed: int = 0, *, missing: bool = False) -> Stream:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = np.round(rng.normal(0, 1, (n, 4)) + y[:, None] * [2.0, 1.0, 0.0, -1.0], 2)
    x[:, 3] = np.round(x[:, 3])
    if missing:
        x[rng.random(x.shape) < 0.1] = np.nan
    item = tuple(f"item-{i}" for i in (rng.pareto(1.0, n) * 5).astype(int) % 60)
    ts = 1e9 + np.cumsum(rng.exponential(1.0, n))
    names = ("a", "b", "c", "d")
    source = honest_sources(n, count=60, seed=seed)
    return Stream("t", names, x, y, (1, 3, 5), source, ts, item)


def parameters():
    return st.fixed_dictionaries(
        {
            "attack": st.sampled_from(sorted(ATTACKS)),
            "rate": st.sampled_from([0.005, 0.03, 0.15, 0.5]),
            "pattern": st.sampled_from(PATTERNS),
            "colluders": st.sampled_from([0, 5, 40, "fresh", "hijacked", "hijacked:3"]),
            "clean_prefix": st.sampled_from([0.1, 0.3, 0.9]),
            "snap": st.booleans(),
            "seed": st.integers(0, 5),
            "honest_bursts": st.sampled_from([0, 4]),
            "newcomers": st.sampled_from([None, 0.0, 0.2]),
            "trigger_features": st.sampled_from([2, 3, 4]),
        }
    )


def same(a: Attacked, b: Attacked) -> bool:
    arrays = ("poison", "role", "row", "inserted")
    return a.stream.lines() == b.stream.lines() and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays
    )


@settings(max_examples=120, deadline=None)
@given(parameters(), st.booleans())
def test_laws(options, missing):
    honest = make(missing=missing)
    name = options["attack"]
    found = inject(honest, **{"attack": name} | options)
    stream, kind = found.stream, ATTACKS[name]
    n = len(stream)
    # Same seed, same bytes.
    assert same(found, inject(honest, **options))
    # The truth covers every row, and roles say the same as poison.
    assert len(found.poison) == len(found.role) == len(found.row) == len(found.inserted) == n
    assert np.array_equal(found.poison, found.role >= Role.POISON)
    # The rate holds to rounding, behind the clean prefix.
    start = int(N * options["clean_prefix"])
    assert not found.poison[:start].any()
    assert abs(found.poison.sum() - options["rate"] * (n - start)) <= 1
    # Length and order: the honest rows are all there, in order.
    own = found.row[~found.inserted]
    assert np.array_equal(own, np.arange(N))
    assert found.inserted.sum() == n - N and (found.inserted.any() == kind.inserts)
    assert (found.poison == found.inserted).all() or not kind.inserts
    assert (np.diff(stream.ts) >= 0).all()
    assert (found.row >= 0).all() and (found.row < N).all()
    # Untouched rows are untouched; of honest ones at most the source is another.
    if kind.needs == "gradient":
        honest = with_gradients(honest, seed=options["seed"])
    before, after = honest.lines(), stream.lines()
    for i in np.flatnonzero(~found.poison).tolist():
        if found.role[i] in (Role.HONEST, Role.HIJACKED_HONEST):
            assert after[i] == before[found.row[i]]
        else:
            old, new = before[found.row[i]], after[i]
            assert old.replace(b'"source":"' + honest.source[found.row[i]].encode(), b"") == (
                new.replace(b'"source":"' + stream.source[i].encode(), b"")
            )
    # Changed rows are poison: nearly every poison row differs from what was there.
    if not kind.inserts and options["colluders"] in (5, 40, "fresh"):
        assert all(after[i] != before[i] for i in np.flatnonzero(found.poison))
    # Snapped values were seen in their column.
    if options["snap"] and not kind.inserts:
        changed = (stream.x != honest.x) & ~np.isnan(stream.x)
        changed &= ~np.isnan(stream.x)
        for column in range(4):
            assert np.isin(stream.x[changed[:, column], column], honest.x[:, column]).all()
    assert set(np.unique(stream.y)) <= {0, 1, 2}
    # Ids stay unique, but where repeating them is the attack.
    ids = {stream.id_of(i) for i in range(n)}
    assert (len(ids) == n) != (name == "replay_same_id")
    check_senders(found, options)


def check_senders(found: Attacked, options) -> None:
    source = np.array(found.stream.source)
    hostile, honest = set(source[found.poison]), set(source[~found.poison])
    names, counts = np.unique(source, return_counts=True)
    single = set(names[counts == 1].tolist())
    colluders = options["colluders"]
    if isinstance(colluders, int) and colluders:
        assert len(hostile) <= colluders and not hostile & honest
    if colluders == "fresh":
        assert len(hostile) == found.poison.sum() and hostile <= single
        assert options["newcomers"] == 0.0 or found.honest_newcomer.any()
        assert {name[:4] for name in hostile} == {"new-"}
    if str(colluders).startswith("hijacked"):
        first = int(np.flatnonzero(found.poison)[0])
        assert len(hostile) <= (3 if ":" in colluders else 5)
        assert hostile <= set(make().source[:first])
    assert set(source[found.honest_newcomer]) <= single
    share = found.honest_newcomer.sum() / max(1, (~found.poison).sum())
    assert share <= 0.21
    if options["honest_bursts"]:
        assert found.honest_burst.any()
        assert len(set(source[found.honest_burst])) <= options["honest_bursts"] + (
            found.honest_newcomer.sum() > 0
        )
        assert not found.honest_burst[: int(N * options["clean_prefix"])].any()
    else:
        assert not found.honest_burst.any()


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_seeds_differ_and_help_is_there(name):
    stream = make()
    assert not same(inject(stream, name, seed=1), inject(stream, name, seed=2))
    assert ATTACKS[name].help


@pytest.mark.parametrize("name", IN_PLACE)
def test_what_surrounds_an_attack_does_not_change_it(name):
    stream = make()
    plain = inject(stream, name, seed=3)
    busy = inject(stream, name, seed=3, honest_bursts=6, newcomers=0.1)
    assert np.array_equal(plain.poison, busy.poison)
    assert np.array_equal(plain.stream.x, busy.stream.x)
    assert np.array_equal(plain.stream.y, busy.stream.y)
    assert busy.honest_burst.sum() >= plain.poison.sum() * 0.9


def test_backdoors_stamp_the_features_they_say():
    stream = make(3000)
    for features in (2, 3, 4):
        found = inject(stream, "backdoor", trigger_features=features, colluders=0)
        rows = found.stream.x[found.poison]
        assert ((rows == rows[0]).all(axis=0)).sum() == features
        assert len(set(found.stream.y[found.poison])) == 1


def test_typical_and_atypical_values_differ_in_how_usual_they_are():
    stream = make(3000)

    def distance(name: str) -> float:
        found = inject(stream, name, colluders=0, rate=0.1, trigger_features=2)
        target = int(found.stream.y[found.poison][0])
        own = stream.x[stream.y == target]
        fixed = (found.stream.x[found.poison] == found.stream.x[found.poison][0]).all(axis=0)
        far = np.abs(found.stream.x[found.poison][0] - own.mean(axis=0)) / own.std(axis=0)
        return float(far[fixed].mean())

    assert distance("backdoor_typical") < 1.0
    assert distance("backdoor_atypical") > 2.0


def test_a_frog_grows_and_an_accumulative_attack_ends_in_a_batch():
    stream = make(5000)
    frog = inject(stream, "frog", rate=0.1, colluders=0)
    moved = np.linalg.norm(frog.stream.x - stream.x, axis=1)[frog.poison]
    assert moved[:50].mean() < 0.1 * moved[-50:].mean()
    slow = inject(stream, "accumulative", rate=0.05, pattern="spread")
    prepare, batch = (np.flatnonzero(slow.role == r) for r in (Role.PREPARE, Role.POISON))
    assert prepare.max() < batch.min() and np.ptp(batch) <= 1.5 * len(batch) + 1
    assert np.array_equal(slow.stream.y[prepare], stream.y[prepare])


def test_collisions_lie_next_to_a_victim_of_another_class():
    stream = make(3000)
    found = inject(stream, "clean_label_collide", colluders=0)
    assert np.array_equal(found.stream.y, stream.y)
    history = stream.x[: int(np.flatnonzero(found.poison)[0])]
    for row in np.flatnonzero(found.poison)[:20].tolist():
        far = np.linalg.norm(history - found.stream.x[row], axis=1)
        assert stream.y[int(far.argmin())] != stream.y[row]


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_updates_are_attacked_as_named():
    stream = with_gradients(make(3000), seed=4)
    honest = stream.gradient

    def vectors(name: str) -> tuple[np.ndarray, np.ndarray]:
        found = inject(stream, name, rate=0.1)
        assert np.array_equal(found.stream.x, stream.x)
        assert np.array_equal(found.stream.y, stream.y)
        assert np.array_equal(found.stream.gradient[~found.poison], honest[~found.poison])
        return found.stream.gradient[found.poison], honest[found.poison]

    now, old = vectors("gradient_scaled")
    assert np.allclose(now, 10 * old)
    now, old = vectors("gradient_flipped")
    assert np.allclose(now, -old)
    now, old = vectors("gradient_sybils")
    assert cosine(now, now[0]).min() > 0.95
    assert np.median(np.linalg.norm(now, axis=1)) < 2 * np.median(np.linalg.norm(old, axis=1))
    now, old = vectors("gradient_lie")
    centre = np.abs(now - honest.mean(axis=0)) / honest.std(axis=0)
    assert np.median(centre) < 2.0
    assert now.mean(axis=0) @ honest.mean(axis=0) < 0


def test_honest_updates_are_causal_and_point_downhill():
    stream = make(2000)
    whole, part = with_gradients(stream).gradient, with_gradients(stream.take(np.arange(1024)))
    assert whole.shape == (2000, 15)
    assert np.allclose(whole[:1024], part.gradient)
    two = replace(stream, y=stream.y % 2, labels=(0, 1))
    assert with_gradients(two).gradient.shape == (2000, 5)


def test_shilling_moves_the_mean_of_its_targets():
    stream = make(4000)
    worth = np.array([1.0, 3.0, 5.0])
    for aim, sign in (("push", 1), ("nuke", -1)):
        for profile in ("random", "average", "bandwagon"):
            found = inject(stream, f"shilling_{aim}_{profile}", rate=0.1)
            after = np.array(found.stream.subject)
            targets = set(after[found.role == Role.POISON])
            rated = worth[found.stream.y]
            assert set(rated[found.role == Role.POISON]) == {5.0 if sign > 0 else 1.0}
            for item in targets:
                mine = after == item
                assert sign * (rated[mine].mean() - rated[mine & ~found.poison].mean()) >= 0
            fillers = found.role == Role.FILLER
            assert not targets & set(after[fillers]) and fillers.sum() > 5 * len(targets)
            accounts = np.array(found.stream.source)
            aimed = found.role == Role.POISON
            pairs = list(zip(accounts[aimed], after[aimed], strict=True))
            assert len(pairs) == len(set(pairs))
    crowd = inject(stream, "shilling_push_bandwagon", rate=0.1)
    plain = inject(stream, "shilling_push_random", rate=0.1)
    mean = [worth[f.stream.y[f.role == Role.FILLER]].mean() for f in (crowd, plain)]
    assert mean[0] > mean[1]


def test_a_stream_that_derives_its_features_derives_those_of_inserted_rows():
    def derive(stream: Stream) -> np.ndarray:
        return np.array(
            [[len(s), len(i)] for s, i in zip(stream.source, stream.subject, strict=True)], float
        )

    plain = make()
    stream = replace(plain, derive=derive, columns=("a", "b"), x=derive(plain))
    found = inject(stream, "shilling_nuke_average")
    assert np.array_equal(found.stream.x, derive(found.stream))


@pytest.mark.parametrize("name", ["replay", "replay_same_id"])
def test_replays_are_copies_of_earlier_events(name):
    stream = with_gradients(make())
    found = inject(stream, name, colluders=0, rate=0.1)
    after = found.stream
    for i in np.flatnonzero(found.poison).tolist():
        row = int(found.row[i])
        earlier = int(np.flatnonzero((found.row == row) & ~found.inserted)[0])
        assert earlier < i
        assert np.array_equal(after.x[i], stream.x[row]) and after.y[i] == stream.y[row]
        assert np.array_equal(after.gradient[i], stream.gradient[row])
        assert after.source[i] == stream.source[row] and after.subject[i] == stream.subject[row]
        assert (after.id_of(i) == stream.id_of(row)) == (name == "replay_same_id")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attack": "nonsense"}, "choose one of flip"),
        ({"rate": 0.0}, "attack rate must be above 0 and at most 0.5"),
        ({"rate": 0.7}, "at most 0.5"),
        ({"pattern": "wave"}, "choose one of burst, spread"),
        ({"clean_prefix": 1.0}, "clean prefix"),
        ({"colluders": "many"}, "hijacked:N"),
        ({"colluders": "hijacked:0"}, "hijacked:N"),
        ({"newcomers": 0.9}, "newcomers"),
        ({"honest_bursts": -1}, "at least 0"),
        ({"trigger_features": 0}, "trigger features"),
    ],
)
def test_errors_say_what_is_allowed(options, says):
    with pytest.raises(UsageError, match=says):
        inject(make(), **{"attack": "flip"} | options)


def test_streams_that_cannot_be_attacked():
    with pytest.raises(UsageError, match="subject"):
        inject(replace(make(), subject=None), "shilling_push_random")
    with pytest.raises(UsageError, match="two labels"):
        inject(replace(make(), labels=(1,), y=np.zeros(N, dtype=np.int64)), "flip")
    with pytest.raises(UsageError, match="at least 100"):
        inject(make(99), "flip")
