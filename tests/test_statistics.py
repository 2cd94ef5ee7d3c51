import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdi_lib.statistics import holm, paired_difference, sample_efficiency


def test_interval_covers_at_its_level() -> None:
    """Twenty pairs, true difference 0.3: the interval covers it about as often as it says."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        base = rng.normal(size=20)
        result = paired_difference(base, base + 0.3 + 0.5 * rng.normal(size=20), confidence=0.9)
        covered += result.low <= 0.3 <= result.high
        assert result.low <= result.mean <= result.high
    assert 160 <= covered <= 195


def test_pairing_matters() -> None:
    rng = np.random.default_rng(1)
    base = 10 * rng.normal(size=15)
    other = base - 0.5 + 0.1 * rng.normal(size=15)
    assert paired_difference(base, other).high < 0 < paired_difference(base, rng.permutation(other)).high


def test_sample_efficiency_by_hand() -> None:
    sizes, loss = [50, 200, 800], [0.6, 0.4, 0.2]
    assert np.isclose(sample_efficiency(sizes, loss, 0.4, 50), 4)
    assert np.isclose(sample_efficiency(sizes, loss, 0.3, 200), 2)
    assert np.isclose(sample_efficiency(sizes, loss, 0.6, 50), 1)
    assert sample_efficiency(sizes, loss, 0.1, 50) == np.inf
    assert np.isclose(sample_efficiency(sizes, loss, 0.9, 200), 0.25)  # the base was there with 50
    assert np.isclose(sample_efficiency(sizes, [0.6, 0.7, 0.2], 0.6, 50), 1)  # a bump is no gain


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_closed_testing(p: list[float]) -> None:
    """A hypothesis falls if every intersection that holds it does, by Bonferroni: all subsets, one by one."""
    closed = [
        max(
            min(1.0, len(chosen) * min(p[j] for j in chosen))
            for size in range(1, len(p) + 1)
            for chosen in itertools.combinations(range(len(p)), size)
            if i in chosen
        )
        for i in range(len(p))
    ]
    assert np.allclose(holm(p), closed, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda: paired_difference([1.0], [1.0]), ValueError, "base"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), ValueError, "other"),
        (lambda: paired_difference([1.0, np.nan], [1.0, 2.0]), ValueError, "base"),
        (lambda: paired_difference([1.0, 2.0], [1.0, 2.0], confidence=1.0), ValueError, "confidence"),
        (lambda: holm([0.5, 1.5]), ValueError, "p_values"),
        (lambda: holm([]), ValueError, "p_values"),
        (lambda: sample_efficiency([2, 1], [1.0, 2.0], 1.0, 1.0), ValueError, "n_samples"),
        (lambda: sample_efficiency([1, 2], [1.0], 1.0, 1.0), ValueError, "base"),
        (lambda: sample_efficiency([1, 2], [1.0, 0.5], np.nan, 1.0), ValueError, "reached"),
        (lambda: sample_efficiency([1, 2], [1.0, 0.5], 0.7, 0.0), ValueError, "at"),
    ],
)
def test_bad_arguments_are_named(call, error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=f"^{name}"):
        call()
