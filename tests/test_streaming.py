"""Sums over batches are the in-memory estimate, whoever merges what, and whatever is in the data."""

import concurrent.futures
import contextlib
import functools
import itertools
import math
import multiprocessing
import pickle
import tracemalloc
from collections.abc import Callable, Iterator

import distributed
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib.spectrum import METHODS, TaskSpectrum, estimate_task_spectrum, periodograms
from tdi_lib.streaming import SpectrumAccumulator, _tapered, accumulate

SUMS = ("input", "flat", "cross", "wiener", "shrunk", "discriminative")
LENGTH = 48
TIME = np.arange(LENGTH)


def samples(n_samples: int, kind: str, channels: int = 1, seed: int = 0, offset: float = 3.0):
    """Red sequences with an offset; targets that hear one tone, as numbers, classes or several labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_samples, LENGTH, channels)).cumsum(axis=1) + offset
    clean = (x - offset)[:, :, 0] @ np.cos(1.3 * TIME)
    noisy = clean + 0.3 * clean.std() * rng.normal(size=n_samples)
    y = {
        "real": noisy + 1e3,
        "several": np.column_stack([noisy, rng.normal(size=n_samples) - 50, -noisy]),
        "classes": np.digitize(noisy, np.quantile(noisy, [0.3, 0.8])),
        "names": np.array(["low", "mid", "upper"])[np.digitize(noisy, np.quantile(noisy, [0.3, 0.8]))],
        "labels": np.column_stack([noisy > 0, rng.random(n_samples) < 0.3]).astype(int),
        "steps": (x - offset)[:, :, 0] + rng.normal(size=(n_samples, LENGTH)),
    }[kind]
    return x, y


KINDS = ("real", "several", "classes", "names", "labels", "steps")


def batches(x: np.ndarray, y: np.ndarray | None, sizes: list[int], lengths=None) -> Iterator[tuple]:
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(x):
            return
        part = slice(start, start + size)
        yield x[part], None if y is None else y[part], None if lengths is None else lengths[part]
        start += size


def difference(one: TaskSpectrum, other: TaskSpectrum) -> float:
    """Largest, relative to the largest value of each; power may be zero somewhere."""
    assert one.method == other.method and one.n_samples == other.n_samples
    assert np.array_equal(one.omega, other.omega)
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("power", "input_power", "importance")]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_one_pass_is_the_in_memory_estimate(method: str, kind: str, channels: int) -> None:
    """Every method, every kind of target, up to as many samples as the reservoir holds."""
    x, y = samples(300, kind, channels)
    streamed = accumulate(batches(x, y, [1, 64, 7])).result(method)
    assert difference(streamed, estimate_task_spectrum(x, y, method=method)) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", SUMS)
def test_sums_need_no_reservoir_however_many_samples(method: str, kind: str) -> None:
    x, y = samples(3000, kind, 2)
    streamed = accumulate(batches(x, y, [500, 33]), reservoir=0).result(method, smoothing=3)
    assert difference(streamed, estimate_task_spectrum(x, y, method=method, smoothing=3)) < 1e-9


@pytest.mark.parametrize("method", SUMS)
def test_a_large_offset_costs_no_digits(method: str) -> None:
    """Sums of squares less the square of the sum would lose them all: offset 1e6, slow batches of one kind first."""
    x, y = samples(400, "real", offset=1e6)
    order = np.argsort(y)
    x, y = x[order], y[order] + 1e7
    streamed = accumulate(batches(x, y, [16])).result(method)
    assert difference(streamed, estimate_task_spectrum(x, y, method=method)) < 1e-6


@pytest.mark.parametrize("length", [8, 64, 65])
def test_the_taper_from_the_plain_dft_is_scipys(length: int) -> None:
    """In scale too, for whole and padded sequences meet in one sum; five decades below a loud band, with an offset."""
    rng = np.random.default_rng(0)
    x = 1e-3 * rng.normal(size=(20, length, 2)) + 50 * np.cos(0.5 * np.arange(length))[:, None] + 7
    u = np.fft.rfft(x, n=length + length % 2, axis=1) / math.sqrt(length)
    ours = _tapered(u, x, np.full(20, length))
    assert np.allclose(ours, periodograms(x), rtol=1e-7)


def test_many_samples_in_the_reservoir_are_a_fair_subset() -> None:
    """`auto` of 5,000 samples from the 400 kept: the same order, the same band, near the in-memory estimate."""
    x, y = samples(5000, "real")
    accumulator = accumulate(batches(x, y, [100]))
    spectrum = accumulator.result()
    whole = estimate_task_spectrum(x, y)
    assert spectrum.method == whole.method == "evidence" and spectrum.n_samples == 5000
    assert np.abs(spectrum.input_power / whole.input_power - 1).max() < 1e-9  # a sum over all of them
    one, other = spectrum.importance, whole.importance
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.95
    places = accumulator._kept.places[:, 1]
    assert len(np.unique(places)) == 400 and abs(places.mean() - 2500) < 5 * 5000 / math.sqrt(12 * 400)


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(KINDS), n_parts=st.integers(2, 5))
@settings(max_examples=25, deadline=None)
def test_merging_is_associative_and_knows_no_order(seed: int, kind: str, n_parts: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = samples(120, kind, seed=seed)
    cuts = np.concatenate([[0], np.sort(rng.choice(np.arange(5, 116), n_parts - 1, replace=False)), [120]])
    parts = []
    for stream, (start, stop) in enumerate(itertools.pairwise(cuts)):
        parts.append(accumulate(batches(x[start:stop], y[start:stop], [9]), stream=stream, reservoir=50))
    left = parts[0]
    for part in parts[1:]:
        left = left.merge(part)
    shuffled = [parts[i] for i in rng.permutation(n_parts)]
    while len(shuffled) > 1:  # any tree
        i = int(rng.integers(len(shuffled) - 1))
        shuffled[i : i + 2] = [shuffled[i].merge(shuffled[i + 1])]
    for method in METHODS:
        one, other = left.result(method), shuffled[0].result(method)
        assert difference(one, other) < 1e-9
        if method in SUMS:
            assert difference(one, estimate_task_spectrum(x, y, method=method)) < 1e-9
    assert left.streams == shuffled[0].streams == set(range(n_parts))
    assert sum(part.n_samples for part in parts) == left.n_samples == 120  # the parts are as they were


def test_parts_of_one_class_each_merge() -> None:
    """A class that a part has never seen, and parts that know of one class only."""
    x, y = samples(200, "names")
    parts = [accumulate([(x[y == name], y[y == name])], stream=i) for i, name in enumerate(("upper", "low", "mid"))]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    for method in SUMS:
        assert difference(merged.result(method), estimate_task_spectrum(x, y, method=method)) < 1e-9
    with pytest.raises(ValueError, match="y must hold at least two classes"):
        parts[0].result("shrunk")
    empty = SpectrumAccumulator(stream=9)
    both = empty.merge(merged).merge(SpectrumAccumulator(stream=10))
    assert both.n_samples == 200 and difference(both.result("cross"), merged.result("cross")) == 0


def test_an_update_after_a_merge_shows_in_one_place_only() -> None:
    x, y = samples(90, "real")
    one, other = accumulate([(x[:30], y[:30])]), accumulate([(x[30:60], y[30:60])], stream=1)
    both = one.merge(other)
    before = pickle.dumps(one), pickle.dumps(other)
    both.update(x[60:], y[60:])
    assert before == (pickle.dumps(one), pickle.dumps(other))
    assert difference(both.result("wiener"), estimate_task_spectrum(x, y, method="wiener")) < 1e-9
    kept = both._kept.in_order()
    assert len(np.unique(kept.places, axis=0)) == 90


@pytest.mark.parametrize("method", METHODS)
def test_sequences_of_different_lengths(method: str) -> None:
    """Padded by anything, in batches that are as long as their longest: as in memory, and as if nothing were padded."""
    x, y = samples(200, "classes", 2)
    lengths = np.random.default_rng(1).integers(20, LENGTH + 1, 200)
    padded = np.where((np.arange(LENGTH) < lengths[:, None])[:, :, None], x, np.nan)
    whole = estimate_task_spectrum(padded, y, method=method, lengths=lengths)
    streamed = accumulate(batches(padded, y, [50], lengths)).result(method)
    assert difference(streamed, whole) < 1e-9
    order = np.argsort(lengths, kind="stable")
    buckets = ((padded[b, : lengths[b].max()], y[b], lengths[b]) for b in np.array_split(order, 8))
    bucketed = accumulate(buckets, length=LENGTH).result(method)
    if method in SUMS:
        assert difference(bucketed, whole) < 1e-9
    with pytest.raises(ValueError, match="x must be finite.*lengths"):
        estimate_task_spectrum(padded, y, method=method)


def test_power_at_the_own_length_has_no_step_at_its_end() -> None:
    """The mean periodogram of sequences with an offset, cut at random: as that of whole ones, not that of padding."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 128)) + 40.0
    lengths = rng.integers(64, 129, 2000)
    cut = np.where(np.arange(128) < lengths[:, None], x, 0.0)
    spectrum = estimate_task_spectrum(cut, method="input", lengths=lengths)
    assert np.abs(spectrum.input_power[4:] - 1).max() < 0.15  # below lies what is lost with the mean
    assert np.ptp(estimate_task_spectrum(cut, method="input").input_power) > 1  # so much for silence
    tone = cut + np.where(np.arange(128) < lengths[:, None], 3 * np.cos(2.0 * np.arange(128)), 0.0)
    peak = estimate_task_spectrum(tone, method="input", lengths=lengths)
    assert abs(peak.omega[peak.input_power.argmax()] - 2.0) < 0.03


def test_a_target_at_every_step_is_a_column_for_every_step() -> None:
    """The filter between input and output is found from one or the other order of ideas."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 64))
    k = np.exp(-0.1 * np.arange(64)) * np.cos(1.4 * np.arange(64))
    y = np.array([np.convolve(each, k)[:64] for each in x]) + 0.3 * rng.normal(size=(500, 64))
    for method in ("shrunk", "evidence"):
        spectrum = estimate_task_spectrum(x, y, method=method)
        assert abs(spectrum.omega[spectrum.power.argmax()] - 1.4) < 0.12
        assert difference(accumulate(batches(x, y, [90]), reservoir=500).result(method), spectrum) < 1e-9
    with pytest.raises(ValueError, match=r"^y must be targets .*every step.*reshape"):
        estimate_task_spectrum(x, y[:, :, None])


def test_a_loader_in_single_precision() -> None:
    x, y = samples(256, "classes", 2)
    single = torch.as_tensor(x, dtype=torch.float32)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(single, torch.as_tensor(y)), batch_size=40)
    for method in SUMS:
        streamed = accumulate(loader).result(method)
        assert difference(streamed, estimate_task_spectrum(single, y, method=method)) < 1e-9
    unlabeled = accumulate(iter([single[:100], single[100:]]))
    assert difference(unlabeled.result("flat"), estimate_task_spectrum(single, method="flat")) < 1e-9


def chunk(index: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two batches of a chunk: what a worker would read from a file."""
    x, y = samples(80, "classes", seed=index)
    return [(x[:50], y[:50]), (x[50:], y[50:])]


def of_chunk(index: int) -> SpectrumAccumulator:
    return accumulate(chunk(index), stream=index)


def together(n_chunks: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = zip(*(batch for index in range(n_chunks) for batch in chunk(index)), strict=True)
    return np.concatenate(x), np.concatenate(y)


@contextlib.contextmanager
def dask_cluster() -> Iterator[concurrent.futures.Executor]:
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client.get_executor()


def process_pool() -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("workers", [process_pool, dask_cluster])
def test_other_processes_accumulate_and_one_merges(workers: Callable[[], contextlib.AbstractContextManager]) -> None:
    with workers() as pool:
        away = functools.reduce(SpectrumAccumulator.merge, pool.map(of_chunk, range(6)))
    here = functools.reduce(SpectrumAccumulator.merge, map(of_chunk, range(6)))
    x, y = together(6)
    assert away.streams == set(range(6)) and away.n_samples == 480
    for method in METHODS:
        assert difference(away.result(method), here.result(method)) == 0
        if method in SUMS:
            assert difference(away.result(method), estimate_task_spectrum(x, y, method=method)) < 1e-9


def test_memory_does_not_grow_with_the_data() -> None:
    def peak(n_batches: int) -> int:
        rng = np.random.default_rng(0)
        stream = ((rng.normal(size=(64, 256)), rng.integers(0, 3, 64)) for _ in range(n_batches))
        tracemalloc.start()
        accumulate(stream, reservoir=100).result("discriminative")
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(2)
    assert peak(60) < 1.05 * peak(6)


X, Y = samples(40, "classes")


def after(*batch, **options) -> SpectrumAccumulator:
    accumulator = accumulate([(X, Y)], **options)
    accumulator.update(*batch)
    return accumulator


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: after(X[:, :20], Y), ValueError, "^x must have 48 time steps, got 20"),
        (lambda: after(np.concatenate([X, X], axis=1), Y, length=LENGTH), ValueError, "^x must have 48 time steps"),
        (lambda: after(np.concatenate([X, X], axis=2), Y), ValueError, "^x must have 1 channels as before, got 2"),
        (lambda: after(X), ValueError, "^y must be class numbers as before, got no targets"),
        (lambda: after(X, Y.astype(float)), ValueError, "^y must be class numbers as before, got 1 real"),
        (lambda: after(X, Y.astype(str)), ValueError, "^y must be class numbers as before, got class names"),
        (lambda: after(X, Y[:3]), ValueError, "^y must hold one target per sequence"),
        (lambda: after(X * np.nan, Y), ValueError, "^x must be finite"),
        (lambda: after(X * 0, Y), ValueError, "^x must hold no constant sequences"),
        (lambda: accumulate([(X[:, :20], Y)], length=LENGTH).update(X, Y, lengths=Y), ValueError, "^lengths must lie"),
        (lambda: accumulate([(X, Y)]).update(X, Y, lengths=Y[:3]), ValueError, "^lengths must be 40 integers"),
        (lambda: accumulate([(X, Y, None, 1)]), ValueError, "^batches must be"),
        (lambda: accumulate([(np.tile(X, (60, 1, 1)), np.arange(2400))]), ValueError, "^y must hold few classes"),
        (lambda: accumulate([(X, np.arange(40))]).result("shrunk"), ValueError, "^y must hold at least two sam"),
        (lambda: accumulate([(X, np.full(40, 0.1))]).result("shrunk"), ValueError, "^y must vary in every column"),
        (lambda: accumulate([X]).result(), ValueError, "^y must be given for method 'auto'"),
        (lambda: accumulate([X[:3]]).result("input"), ValueError, "^x must hold at least 4 sequences, got 3"),
        (lambda: accumulate([np.repeat(X[:1], 9, axis=0)]).result("input"), ValueError, "^x must hold sequences that"),
        (lambda: accumulate([(X[:4], Y[:4])]).result("discriminative"), ValueError, "^[xy] must hold at least"),
        (lambda: accumulate([(X, Y)], reservoir=0).result(), ValueError, "^reservoir must be positive"),
        (lambda: accumulate([(X, Y)]).result("best"), ValueError, "^method"),
        (lambda: accumulate([(X, Y)]).result("shrunk", floor=2.0), ValueError, "^floor"),
        (lambda: accumulate([(X, Y)]).merge(X), TypeError, "^other must be a SpectrumAccumulator"),
        (lambda: accumulate([(X, Y)]).merge(accumulate([(X, Y)])), ValueError, r"^other must be of .*streams.*\[0\]"),
        (lambda: accumulate([(X, Y)]).merge(accumulate([(X, Y)], stream=1, seed=1)), ValueError, "^other must have"),
        (lambda: accumulate([(X, Y)]).merge(accumulate([X], stream=1)), ValueError, "^y must be class numbers"),
        (lambda: accumulate([(X, Y)]).merge(accumulate([(X[:, :9], Y)], stream=1)), ValueError, "^other must be of se"),
        (lambda: SpectrumAccumulator(stream=-1), ValueError, "^stream"),
        (lambda: SpectrumAccumulator(length=3), ValueError, "^length"),
        (lambda: SpectrumAccumulator().result(), ValueError, "^x must hold at least 4 sequences, got 0"),
        (lambda: estimate_task_spectrum(X, Y, lengths=np.full(40, 99)), ValueError, r"^lengths must lie in \[8, 48\]"),
        (lambda: estimate_task_spectrum(X, Y, lengths=np.full(40, 9.0)), ValueError, "^lengths must be 40 integers"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("bad", [(X * np.nan, Y), (X, Y[:3]), (X, Y.astype(float)), (X[:, :20], Y)])
def test_a_refused_batch_leaves_the_sums_as_they_were(bad) -> None:
    accumulator = accumulate([(X, Y)])
    before = pickle.dumps(accumulator)
    with pytest.raises(ValueError, match="^[xy] must"):
        accumulator.update(*bad)
    assert pickle.dumps(accumulator) == before
