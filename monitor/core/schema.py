"""What the features of a stream are: learned once from the first valid events, then frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitor.core.events import Features, Parsed
from monitor.core.features import Bad, Layout, array_names, counted, learn_layout
from monitor.core.labels import LabelTable
from monitor.core.limits import Limits
from monitor.core.transform import Transform, is_plausible, plausible
from monitor.core.types import FloatArray

__all__ = ["SCHEMA_VERSION", "LabelTable", "Schema", "SchemaSpec"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class SchemaSpec:
    """Features known beforehand; medians, categories and transforms are still learned.

    ``names`` that are "0", "1", … or "f0", "f1", … stand for the elements of an array.

    Examples
    --------
    >>> SchemaSpec(("amount", "amount"), (False, False))
    Traceback (most recent call last):
    ...
    ValueError: an explicit schema must name each feature once; "amount" is there twice
    """

    names: tuple[str, ...]
    categorical: tuple[bool, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.categorical) or not self.names:
            raise ValueError("an explicit schema needs at least one name, and a kind for each")
        for i, name in enumerate(self.names):
            if name in self.names[:i]:
                raise ValueError(
                    f'an explicit schema must name each feature once; "{name}" is there twice'
                )

    def refuse(self, rows: Sequence[Features]) -> Bad:
        """Which ``features`` do not fit, before anything is learned of their values.

        Where the names stand for the elements of an array, both an array and an object with these
        names fit; which of them the stream has is decided by the majority of the warm-up.

        Examples
        --------
        >>> spec = SchemaSpec(("amount", "card"), (False, True))
        >>> bad = spec.refuse([{"amount": 5.0}, {"amount": "5"}, [5.0, 1.0]])
        >>> [text for _, text in bad.values()]  # doctest: +NORMALIZE_WHITESPACE
        ['features."amount" is the text "5"; expected a number',
         'features is an array; this stream has an object with named values']
        """
        bad: Bad = {}
        for array in (False, True):
            as_array = array and counted(self.names)
            names = array_names(len(self.names)) if as_array else self.names
            none: tuple[tuple[str, ...], ...] = ((),) * len(names)
            layout = Layout(as_array, names, self.categorical, none, np.zeros(len(names)))
            at = [i for i, row in enumerate(rows) if isinstance(row, list) == array]
            found = layout.encode([rows[i] for i in at])[1]
            bad.update((at[i], why) for i, why in found.items())
        return dict(sorted(bad.items()))


@dataclass(frozen=True, eq=False)
class Schema:
    """The features of a stream and their transforms. Frozen; made by :meth:`learn`.

    Attributes
    ----------
    layout
        Names, kinds and categories, and from them the d encoded columns.
    scales
        Quantiles, centre and spread of each encoded column.
    gradient_dim
        Length of ``gradient`` arrays, the commonest where they first come; None before.

    Examples
    --------
    >>> schema = Schema.learn([{"amount": 5.0, "card": "visa"}, {"amount": 7.0, "card": "amex"}])
    >>> schema.columns
    ('amount', 'card=amex', 'card=visa', 'card=(other)')
    >>> x, bad = schema.encode([{"amount": 6.0, "card": "visa"}, {"amount": "6"}])
    >>> x[0].tolist(), bad[1][1]
    ([6.0, 0.0, 1.0, 0.0], 'features."amount" is the text "6"; expected a number')
    """

    layout: Layout
    scales: Transform
    gradient_dim: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The d names of the encoded columns."""
        return self.layout.columns

    @property
    def n_columns(self) -> int:
        """d, the number of encoded columns."""
        return len(self.layout.columns)

    @property
    def kinds(self) -> tuple[str, ...]:
        """``numeric`` or ``categorical`` for each feature."""
        flags = self.layout.categorical
        return tuple("categorical" if flag else "numeric" for flag in flags)

    @classmethod
    def learn(
        cls,
        samples: Parsed | Sequence[Features],
        limits: Limits | None = None,
        *,
        spec: SchemaSpec | None = None,
        seed: int = 0,
    ) -> Schema:
        """Learn from the first valid events.

        Parameters
        ----------
        samples
            Parsed events, or just their ``features``, in order. Those that do not fit what the
            majority shows are left out, and so are those with absurd values.
        limits
            Bounds on the number of features and of columns a categorical feature gets.
        spec
            Features known beforehand.
        seed
            Seed of the numbers given to rare categories.
        """
        rows = samples.features() if isinstance(samples, Parsed) else samples
        layout = learn_layout(
            rows,
            limits or Limits(),
            names=None if spec is None else spec.names,
            categorical=None if spec is None else spec.categorical,
            sources=[e.source for e in samples.events] if isinstance(samples, Parsed) else None,
            seed=seed,
        )
        x, bad = layout.encode(rows)
        good = np.array([row not in bad for row in range(len(rows))], dtype=bool)
        gradient = samples.gradient_dim() if isinstance(samples, Parsed) else None
        x = x[good]
        return cls(layout, Transform.learn(x[is_plausible(x, *plausible(x))]), gradient)

    def encode(self, rows: Sequence[Features]) -> tuple[FloatArray, Bad]:
        """Encoded columns float64[n, d] of n events, and the refused rows (see ``Layout``)."""
        return self.layout.encode(rows)

    def transform(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``g`` and ``z``, float64[n, d] each, of encoded columns (see ``Transform``)."""
        return self.scales.apply(x)

    def to_dict(self) -> dict[str, Any]:
        """Plain mapping with a version; numbers are kept in arrays."""
        return {
            "version": SCHEMA_VERSION,
            "layout": self.layout.to_dict(),
            "scales": self.scales.to_dict(),
            "gradient_dim": self.gradient_dim,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schema:
        """Inverse of :meth:`to_dict`; lists are accepted for arrays.

        Raises
        ------
        ValueError
            When the version is not one this program can read.
        """
        if data.get("version") != SCHEMA_VERSION:
            raise ValueError(f"schema version {data.get('version')} cannot be read; 1 can")
        gradient = data["gradient_dim"]
        return cls(
            Layout.from_dict(data["layout"]),
            Transform.from_dict(data["scales"]),
            None if gradient is None else int(gradient),
        )
