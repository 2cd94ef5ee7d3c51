"""The door: what is checked once, and what a share of the samples keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib.samples import CheckedSamples, check_inputs, evenly


@given(seed=st.integers(0, 1000), n_samples=st.integers(4, 30), length=st.integers(8, 20), channels=st.integers(1, 3))
@settings(deadline=None)
def test_padding_becomes_the_mean_and_targets_are_standardized(
    seed: int, n_samples: int, length: int, channels: int
) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.normal(size=(n_samples, length, channels))
    ends = rng.integers(8, length + 1, n_samples)
    padded = np.where(np.arange(length)[:, None] < ends[:, None, None], whole, np.nan)
    samples = CheckedSamples.of(padded, rng.normal(size=(n_samples, 2)), ends)
    for sequence, original, end in zip(samples.inputs, whole, ends, strict=True):
        assert (sequence[:end] == original[:end]).all()
        assert np.allclose(sequence.mean(axis=0), original[:end].mean(axis=0), atol=1e-12)
    assert (samples.ends is None) == (ends == length).all()
    assert np.allclose(samples.targets.mean(axis=0), 0, atol=1e-9)
    assert np.allclose(samples.targets.std(axis=0), 1)


def test_a_part_has_every_class_at_its_share() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1, 2], [60, 30, 10]))
    samples = CheckedSamples.of(rng.normal(size=(100, 12)), labels, np.full(100, 12))
    part = samples.at_most(20)
    rows = [int(np.flatnonzero((samples.inputs == each).all(axis=(1, 2)))[0]) for each in part.inputs]
    assert np.bincount(labels[rows]).tolist() == [12, 6, 2]
    assert (part.targets == samples.targets[rows]).all()
    assert len(set(rows)) == len(part) == 20
    assert samples.at_most(100) is samples


def test_ends_go_with_their_sequences() -> None:
    rng = np.random.default_rng(0)
    ends = rng.integers(8, 13, 40)
    samples = CheckedSamples.of(rng.normal(size=(40, 12)), rng.normal(size=40), ends)
    keep = evenly(samples.targets, 10)
    assert samples.at_most(10).ends.tolist() == ends[keep].tolist()


@pytest.mark.parametrize(("y", "told"), [(None, "y must hold one target"), (np.zeros(5), "y must vary")])
def test_targets_are_asked_for(y: np.ndarray | None, told: str) -> None:
    x = np.random.default_rng(0).normal(size=(5, 9))
    with pytest.raises(ValueError, match=told):
        CheckedSamples.of(x, y)
    assert CheckedSamples.without_targets(x).targets.shape == (5, 0)
    assert (CheckedSamples.without_targets(x).inputs == check_inputs(x)).all()
