import itertools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tdi_lib.study.analysis import grouped_bootstrap, grouped_mean, holm, paired_difference, sample_efficiency


def test_interval_covers_at_its_level() -> None:
    """Twenty pairs, true difference 0.3: the interval covers it about as often as it says."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        base = rng.normal(size=20)
        result = paired_difference(base, base + 0.3 + 0.5 * rng.normal(size=20))
        covered += result.low <= 0.3 <= result.high
        assert result.low <= result.mean <= result.high
    assert 178 <= covered <= 197


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


def test_the_mean_over_groups_is_students() -> None:
    x = np.random.default_rng(0).normal(1.0, 2.0, 12)
    expected = scipy.stats.ttest_1samp(x, 0.0).confidence_interval(0.95)
    alone = grouped_mean(x)
    np.testing.assert_allclose(alone, (x.mean(), *expected))
    sets = np.repeat(["a", "b", "c"], 4)
    np.testing.assert_allclose(grouped_mean(x, sets), grouped_mean(x.reshape(3, 4).mean(axis=1)))
    order = np.random.default_rng(1).permutation(12)
    np.testing.assert_allclose(grouped_mean(x[order], sets[order]), grouped_mean(x, sets))
    assert alone.ends == (alone.low, alone.high)


def test_the_interval_of_the_mean_covers() -> None:
    """Four sets with sizes of effect of their own and three seeds on each: 95 % of the time, not less for few sets."""
    generator, sets = np.random.default_rng(0), np.repeat(range(4), 3)
    hits = 0
    for _ in range(1000):
        found = grouped_mean(generator.normal(size=4)[sets] + 0.3 * generator.normal(size=12), sets)
        hits += found.low <= 0.0 <= found.high
    assert 0.93 < hits / 1000 < 0.97


def test_groups_are_resampled_whole() -> None:
    """The error of a mean over 20 groups of five like values is that of 20 values, not of 100."""
    effects = np.random.default_rng(0).normal(size=20)
    x, groups = np.repeat(effects, 5), np.repeat(range(20), 5)
    found = grouped_bootstrap(lambda rows: x[rows].mean(), groups)
    assert np.isclose(found.value, effects.mean())
    assert np.isclose(found.high - found.low, 2 * 1.96 * effects.std() / 20**0.5, rtol=0.1)
    assert found == grouped_bootstrap(lambda rows: x[rows].mean(), groups)
    # scipy's own, which cannot leave out resamples without a statistic
    means = lambda index, axis: effects[index].mean(axis=axis)  # noqa: E731
    theirs = scipy.stats.bootstrap(
        (np.arange(20),), means, n_resamples=2000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.ends == pytest.approx((theirs.low, theirs.high))
    ranks = grouped_bootstrap(lambda rows: scipy.stats.spearmanr(x[rows], -x[rows]).statistic, groups)
    assert ranks == pytest.approx((-1, -1, -1))
    steps = np.repeat([0.0, 1.0], 10)  # many a resample is constant and has no rank correlation
    two = grouped_bootstrap(lambda rows: scipy.stats.spearmanr(steps[rows], steps[rows]).statistic, [0] * 10 + [1] * 10)
    assert two == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grouped_mean([1.0]), "groups must be at least two, got 1"),
        (lambda: grouped_mean([1.0, 2.0], ["a", "a"]), "groups must be at least two, got 1"),
        (lambda: grouped_mean([1.0, 2.0], ["a"]), r"groups must give one group per value \(2,\), got shape \(1,\)"),
        (lambda: grouped_mean([1.0, np.nan]), "values must"),
        (lambda: grouped_bootstrap(lambda rows: np.nan, [0, 1]), "statistic must be finite on all rows, got nan"),
        (lambda: grouped_bootstrap(len, [0, 1], n_resamples=0), "n_resamples must"),
    ],
)
def test_groups_are_checked(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
