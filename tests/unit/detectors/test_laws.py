"""Every detector, also the optional ones, obeys :mod:`tests.checks.detector_laws`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.detectors import DETECTORS, OPTIONAL
from tests.checks import detector_laws as laws
from tests.checks.detector_laws import COLUMNS, Shape, batch_of, shapes, warm

ALL = (*DETECTORS, *OPTIONAL)
pytestmark = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
few = settings(max_examples=12, deadline=None)


def test_names_are_unique(kind: type[Any]) -> None:
    assert [other.name for other in ALL].count(kind.name) == 1
    laws.declares_itself(kind())


@few
@given(shape=shapes, cold=st.booleans())
def test_pure_deterministic_and_sane(kind: type[Any], shape: Shape, cold: bool) -> None:
    detector = kind()
    state = detector.empty(COLUMNS) if cold else warm(kind)
    shape = replace(shape, table=shape.classes) if cold else shape
    laws.scores_are_sane(detector, state, batch_of(shape))
    laws.is_pure(detector, state, batch_of(shape))
    laws.is_deterministic(detector, state, batch_of(shape))


@few
@given(shape=shapes)
def test_explains_in_words(kind: type[Any], shape: Shape) -> None:
    laws.explains_in_words(kind(), warm(kind), batch_of(shape))


@few
@given(shape=shapes)
def test_cold_start_is_silent(kind: type[Any], shape: Shape) -> None:
    laws.cold_start_is_silent(kind(), batch_of(shape))


@few
@given(shape=shapes, cut=st.floats(0.0, 1.0))
def test_splits_add_up(kind: type[Any], shape: Shape, cut: float) -> None:
    laws.splits_add_up(kind(), warm(kind), batch_of(shape), int(cut * shape.n))


def test_survives_a_snapshot(kind: type[Any]) -> None:
    laws.survives_a_snapshot(kind(), warm(kind))
    laws.survives_a_snapshot(kind(), kind().empty(COLUMNS))


@pytest.mark.parametrize("lengths", [(8, 8), (8, 3), (2, 8)], ids=str)
def test_merge(kind: type[Any], lengths: tuple[int, int]) -> None:
    a, b = warm(kind, 0, lengths[0]), warm(kind, 5, lengths[1])
    laws.merge_commutes(kind(), a, b)
    laws.empty_is_neutral(kind(), a)


def test_nothing_changes_nothing(kind: type[Any]) -> None:
    laws.nothing_changes_nothing(kind(), warm(kind))
    laws.nothing_changes_nothing(kind(), kind().empty(COLUMNS))


def test_labels_may_appear(kind: type[Any]) -> None:
    laws.labels_may_appear(kind())


def test_memory_is_bounded(kind: type[Any]) -> None:
    laws.memory_is_bounded(kind())
