"""Generated tasks: ListOps against another evaluator, Pathfinder against what a flood fill sees."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tdi_lib.data import arena as module
from tdi_lib.data.arena import LISTOPS_TOKENS, listops, pathfinder

# ---- ListOps ----------------------------------------------------------------------------------------

OPERATIONS = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(np.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


def evaluate(tokens: list[str]) -> tuple[int, int, int]:
    """Value, depth and largest number of arguments, read from left to right with a stack; an ill-formed text raises."""
    stack: list[tuple[str, list[tuple[int, int, int]]]] = [("[MIN", [])]
    for token in tokens:
        if token in OPERATIONS:
            stack.append((token, []))
            continue
        if token == "]":
            operator, arguments = stack.pop()
            values, depths, widths = zip(*arguments, strict=True)
            result = (OPERATIONS[operator](values), 1 + max(depths), max(len(arguments), *widths))
        else:
            result = (int(token), 1, 0)
        stack[-1][1].append(result)
    ((_, [whole]),) = stack
    return whole


def texts(codes: np.ndarray) -> list[list[str]]:
    return [[LISTOPS_TOKENS[code] for code in row[row >= 0]] for row in codes]


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 40),
    low=st.integers(1, 20),
    more=st.integers(4, 60),
    depth=st.integers(2, 6),
    arguments=st.integers(2, 12),
)
def test_lists_are_well_formed_within_the_limits_and_worth_their_label(seed, count, low, more, depth, arguments):
    low = min(low, arguments + 2)  # what one list without lists in it can reach
    codes, values = listops(
        count,
        generator=np.random.default_rng(seed),
        min_length=low,
        max_length=low + more,
        max_depth=depth,
        max_args=arguments,
    )
    assert codes.shape == (count, low + more) and codes.dtype == np.int8 and values.shape == (count,)
    for row, tokens, value in zip(codes, texts(codes), values, strict=True):
        assert low <= len(tokens) <= low + more
        assert (row[len(tokens) :] == -1).all()  # padding at the end only
        worth, deep, wide = evaluate(tokens)
        assert worth == value
        assert 2 <= deep <= depth and 2 <= wide <= arguments


@pytest.fixture(scope="module")
def arena() -> tuple[np.ndarray, np.ndarray]:
    return listops(6000, generator=np.random.default_rng(0))


def test_long_lists_are_worth_their_label(arena):
    codes, values = arena
    depths = []
    for tokens, value in zip(texts(codes[:200]), values, strict=False):
        worth, deep, wide = evaluate(tokens)
        assert worth == value and 500 <= len(tokens) <= 2000 and wide <= 10
        depths.append(deep)
    assert max(depths) == 10  # the limit is reached, and not passed


def test_shares_of_tokens_are_those_of_the_growth():
    """Counted over lists that no limit of length has chosen: 1/4 lists, 2 to 10 arguments, each digit alike."""
    codes, _ = listops(20_000, generator=np.random.default_rng(1), min_length=1, max_length=102, max_depth=3)
    lists = (codes >= 10) & (codes < 14)
    digits = (codes >= 0) & (codes < 10)
    inner = lists.sum(axis=1) - 1
    arguments = digits.sum(axis=1) + inner  # of all lists
    # depth 3: the root's arguments are lists with probability 1/4, theirs are digits
    assert abs(inner.mean() - 6 / 4) < 4 * inner.std() / np.sqrt(len(codes))
    assert abs(arguments.sum() / lists.sum() - 6) < 0.05
    for part, kinds in ((digits, 10), (lists, 4)):
        counts = np.bincount(codes[part] % 10, minlength=kinds)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_balance_and_difficulty(arena):
    """Extremes are the most frequent; the outermost operator alone gives more than a third."""
    codes, values = arena
    share = np.bincount(values, minlength=10) / len(values)
    assert set(np.argsort(share)[-2:]) == {0, 9} and 0.15 < share.max() < 0.19 and share.min() > 0.06
    outermost = codes[:, 0]
    guesses = np.array([np.bincount(values[outermost == o]).argmax() for o in range(10, 14)])[outermost - 10]
    assert 0.34 < (guesses == values).mean() < 0.40


@pytest.mark.parametrize(
    "make", [lambda seed: listops(50, generator=seed), lambda seed: pathfinder(50, generator=seed)]
)
def test_seeded(make):
    first, again, other = (make(np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not (first[0] == other[0]).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_samples": 0}, ValueError, "n_samples must be at least 1"),
        ({"n_samples": 2.0}, TypeError, "n_samples must be an integer"),
        ({"min_length": 20, "max_length": 10}, ValueError, "max_length must be at least 20, got 10"),
        ({"min_length": 1, "max_length": 3}, ValueError, "max_length must be at least 4, got 3"),
        ({"max_depth": 1}, ValueError, "max_depth must be at least 2"),
        ({"max_args": 1}, ValueError, "max_args must be at least 2"),
        ({"max_depth": 2}, ValueError, "min_length must be one that lists reach, got 500: 0 of"),
    ],
)
def test_bad_lists(options, error, message):
    with pytest.raises(error, match=message):
        listops(**({"n_samples": 2, "generator": np.random.default_rng(0)} | options))


# ---- Pathfinder -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def geometry() -> tuple[np.ndarray, np.ndarray]:
    return module._paths(4096, np.random.default_rng(0))


def test_paths_keep_the_rules(geometry):
    longs, shorts = geometry
    assert longs.shape[1:] == (2, 15) and shorts.shape == (len(longs), 5, 5)
    assert len(longs) > 3000
    present = np.isfinite(shorts).all(axis=2)
    assert (present == np.isfinite(shorts).any(axis=2)).all()
    assert present.sum(axis=1).min() >= 1 and present.mean() > 0.7
    for paths in (longs.reshape(-1, 15), shorts[present]):
        assert min(paths.real.min(), paths.imag.min()) > 1.5 and max(paths.real.max(), paths.imag.max()) < 30.5
        strides = np.diff(paths, axis=1)
        np.testing.assert_allclose(np.abs(strides), 3)
        assert np.abs(np.angle(strides[:, 1:] / strides[:, :-1])).max() <= 0.9 + 1e-9
        apart = np.abs(paths[:, :, None] - paths[:, None, :])
        later = np.triu(np.ones(apart.shape[1:], bool), 3)
        assert apart[:, later].min() > 3
    # between any two paths: the cells that keep them apart are a pixel wide
    everything = np.concatenate([longs.reshape(len(longs), -1), shorts.reshape(len(longs), -1)], axis=1)
    owner = np.repeat(np.arange(7), [15, 15, 5, 5, 5, 5, 5])
    apart = np.abs(everything[:, :, None] - everything[:, None, :])[:, owner[:, None] != owner]
    assert np.nanmin(apart) > 3 - np.sqrt(2)


def test_a_flood_fill_finds_the_label(geometry):
    """Drawn fine enough, with gaps filled in and without the dots, the two marked ends are joined or they are not."""
    longs, shorts = (part[:150] for part in geometry)
    size, scale = 128, 4
    pictures = np.zeros((len(longs), size, size), np.float32)
    dashes = np.concatenate([module._dashes(longs), module._dashes(shorts)], axis=1)
    module._draw(pictures, dashes, module._PEN)
    reach = np.hypot(*np.mgrid[-3:4, -3:4]) <= 3.5
    for label in (0, 1):
        dots = module._dots(longs, np.full(len(longs), label))
        for picture, (one, other) in zip(pictures, dots, strict=True):
            filled = scipy.ndimage.binary_dilation(picture > 0.3, structure=reach)
            parts, _ = scipy.ndimage.label(filled, structure=np.ones((3, 3)))
            here, there = (parts[int(p.imag * scale), int(p.real * scale)] for p in (one, other))
            assert here > 0 and there > 0
            assert (here == there) == bool(label)


def test_pictures_show_dots_and_dashes():
    for size, side in ((32, 2), (64, 3)):  # a square of this side fits into a dot and not onto a dash
        pictures, labels = pathfinder(40, generator=np.random.default_rng(3), size=size)
        assert pictures.shape == (40, size, size) and pictures.dtype == np.float32
        assert pictures.min() == 0 and pictures.max() == 1
        assert np.bincount(labels).tolist() == [20, 20]
        solid = scipy.ndimage.minimum_filter(pictures, size=(1, side, side)) > 0.5
        counts = [scipy.ndimage.label(picture, structure=np.ones((3, 3)))[1] for picture in solid]
        assert counts == [2] * 40
    coarse, fine = (pathfinder(4, generator=np.random.default_rng(3), size=size)[0] for size in (32, 128))
    blocks = fine.reshape(4, 32, 4, 32, 4).mean(axis=(2, 4))
    for a, b in zip(coarse, blocks, strict=True):  # one picture, drawn finer
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9


def test_nothing_simple_tells_the_label(geometry):
    """Not how far the dots are apart, not the ink, not a linear map of the pixels nor of their power spectrum."""
    longs, _ = geometry
    distances = [np.abs(np.diff(module._dots(longs, np.full(len(longs), k)), axis=1))[:, 0] for k in (0, 1)]
    rank = scipy.stats.mannwhitneyu(*distances).statistic / len(longs) ** 2
    assert abs(rank - 0.5) < 0.06
    pictures, labels = pathfinder(3000, generator=np.random.default_rng(4))
    ink = pictures.mean(axis=(1, 2))
    assert scipy.stats.ttest_ind(ink[labels == 0], ink[labels == 1]).pvalue > 1e-3
    x = pictures.reshape(3000, -1)
    for features in (x, np.log(np.abs(np.fft.rfft(x - x.mean(axis=1, keepdims=True))[:, 1:]) ** 2 + 1e-3)):
        z = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
        train, test = slice(0, 2000), slice(2000, 3000)
        gram = z[train].T @ z[train] + 2000 * np.eye(z.shape[1])
        weights = np.linalg.solve(gram, z[train].T @ (2.0 * labels[train] - 1))
        assert ((z[test] @ weights > 0) == labels[test]).mean() < 0.58


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_samples": -1}, ValueError, "n_samples must be at least 1, got -1"),
        ({"n_samples": True}, TypeError, "n_samples must be an integer"),
        ({"size": 16}, ValueError, "size must be at least 32, got 16"),
    ],
)
def test_bad_pictures(options, error, message):
    with pytest.raises(error, match=message):
        pathfinder(**({"n_samples": 2, "generator": np.random.default_rng(0)} | options))
