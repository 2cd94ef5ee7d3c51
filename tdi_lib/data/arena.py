"""Two tasks of the Long Range Arena, made anew from their published descriptions: nested lists and dashed paths.

Both are seeded and vectorized over samples. They follow the descriptions of Nangia and Bowman (arXiv:1804.06028),
Linsley et al. (arXiv:1805.08315) and Tay et al. (arXiv:2011.04006), not those authors' programs: the samples are of
the same kind and not the same ones.
"""

from __future__ import annotations

import numpy as np

from tdi_lib.samples import positive_int

__all__ = ["LISTOPS_TOKENS", "listops", "pathfinder"]

LISTOPS_TOKENS = (*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
"""Tokens of :func:`listops`, in the order of their codes."""

_MIN, _CLOSE = 10, 14  # codes of the first operator and of the end of a list
_OPERATOR_SHARE = 0.25  # of the arguments that are lists themselves, in the generator of the Long Range Arena
_BATCH = 4096  # samples grown at a time


def listops(
    n_samples: int,
    *,
    generator: np.random.Generator,
    min_length: int = 500,
    max_length: int = 2000,
    max_depth: int = 10,
    max_args: int = 10,
) -> tuple[np.ndarray, np.ndarray]:
    """Nested lists of digits under minimum, maximum, median and sum modulo 10, with their value.

    Grown from the top: an argument is a list with probability 1/4 (not at ``max_depth``), else a digit; a list has a
    random operator and 2 to ``max_args`` arguments. The median is rounded down. Lists of another length than asked
    for are thrown away. The values are not balanced: minima and maxima make 0 and 9 the most frequent.

    Args:
        n_samples: P.
        generator: source of everything random.
        min_length, max_length: tokens of a sample, both included.
        max_depth: lists within lists plus one for the digits in the innermost; at least 2.
        max_args: arguments of a list, at least 2.

    Returns:
        codes (P, max_length) int8 of :data:`LISTOPS_TOKENS`, -1 after the end; values (P,) in 0..9.

    Raises:
        TypeError, ValueError: naming the argument; also if hardly any list is that long.

    >>> codes, values = listops(1, min_length=8, max_length=13, generator=np.random.default_rng(5))
    >>> " ".join(LISTOPS_TOKENS[code] for code in codes[0] if code >= 0), int(values[0])
    ('[SM 2 [MED 2 7 4 ] 9 5 7 8 ]', 5)
    """
    n_samples = positive_int("n_samples", n_samples)
    min_length = positive_int("min_length", min_length)
    max_length = positive_int("max_length", max_length, minimum=max(4, min_length))
    max_depth = positive_int("max_depth", max_depth, minimum=2)
    max_args = positive_int("max_args", max_args, minimum=2)
    codes, values, found, tried = [], [], 0, 0
    while found < n_samples:
        batch = _grow_lists(_BATCH, generator, min_length, max_length, max_depth, max_args)
        codes.append(batch[0])
        values.append(batch[1])
        found, tried = found + len(batch[1]), tried + _BATCH
        if tried >= 100 * _BATCH and found < tried * 1e-4:
            raise ValueError(f"min_length must be one that lists reach, got {min_length}: {found} of {tried} do")
    return np.concatenate(codes)[:n_samples], np.concatenate(values)[:n_samples]


def _grow_lists(
    count: int, generator: np.random.Generator, min_length: int, max_length: int, max_depth: int, max_args: int
) -> tuple[np.ndarray, np.ndarray]:
    """Grow so many lists level by level, and write down those of the right length.

    A level is three arrays over its nodes: kind (digit or operator), the node's tree, and where the arguments of each
    operator begin in the level below, which holds them in order.
    """
    kinds = [generator.integers(_MIN, _CLOSE, count)]  # a lone digit is never long enough: each root is a list
    trees = [np.arange(count)]
    arities: list[np.ndarray] = []
    for depth in range(2, max_depth + 1):  # of the level that is made
        lists = np.flatnonzero(kinds[-1] >= _MIN)
        arities.append(generator.integers(2, max_args + 1, len(lists)))
        trees.append(np.repeat(trees[-1][lists], arities[-1]))
        kinds.append(generator.integers(0, _MIN, len(trees[-1])))
        if depth < max_depth:
            nested = generator.random(len(kinds[-1])) < _OPERATOR_SHARE
            kinds[-1][nested] = generator.integers(_MIN, _CLOSE, int(nested.sum()))

    # from the bottom up: value and length of each node
    values, sizes = kinds[-1], [np.ones(len(kinds[-1]), np.int64)]
    for kind, arity in zip(kinds[-2::-1], arities[::-1], strict=True):
        size, value = np.ones(len(kind), np.int64), kind.copy()
        nested = kind >= _MIN
        size[nested] = 2 + np.add.reduceat(sizes[-1], _starts(arity)) if len(arity) else 0
        value[nested] = _apply(kind[nested], arity, values)
        values = value
        sizes.append(size)
    sizes.reverse()

    # from the top down: where each node stands in its sample
    right = (min_length <= sizes[0]) & (sizes[0] <= max_length)
    row = np.cumsum(right) - 1
    codes = np.full((int(right.sum()), max_length), -1, np.int8)
    position = np.zeros(count, np.int64)
    for level, (kind, tree, size) in enumerate(zip(kinds, trees, sizes, strict=True)):
        kept = right[tree]
        codes[row[tree[kept]], position[kept]] = kind[kept]
        is_list = kind >= _MIN
        kept &= is_list
        codes[row[tree[kept]], position[kept] + size[kept] - 1] = _CLOSE
        if level < len(arities):
            arity, below = arities[level], sizes[level + 1]
            before = np.cumsum(below) - below  # lengths of all nodes to the left
            position = before + np.repeat(position[is_list] + 1 - before[_starts(arity)], arity)
    return codes, values[right]


def _starts(counts: np.ndarray) -> np.ndarray:
    """Where each group begins in an array that holds groups of these sizes one after another."""
    return np.cumsum(counts) - counts


def _apply(operator: np.ndarray, arity: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Value of each list, its arguments being the next ``arity`` of ``values``."""
    if not len(arity):
        return operator
    starts = _starts(arity)
    ordered = np.sort(np.repeat(np.arange(len(arity)) * _MIN, arity) + values) % _MIN  # within each list
    middle = (ordered[starts + (arity - 1) // 2] + ordered[starts + arity // 2]) // 2
    total = np.add.reduceat(values, starts) % 10
    return np.choose(operator - _MIN, [ordered[starts], ordered[starts + arity - 1], middle, total])


_FRAME = 32  # lengths below are in pixels of a picture this wide
_DASH, _GAP, _PEN = 2.0, 1.0, 0.4  # length of a dash, its round ends included, and of a gap; half its width
_LONG, _SHORT, _DISTRACTORS = 14, 4, 5  # dashes of the two long paths and of the distractors; how many of the latter
_CLEARANCE = 3.0  # between any two paths, and between parts of one that are not neighbors
_TURN = 0.9  # largest change of direction from dash to dash, radians
_DOT = 1.5  # radius
_CANDIDATES, _TRIES = 8, 20


def pathfinder(n_samples: int, *, generator: np.random.Generator, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of dashed paths and two dots: are the dots at the two ends of one path?

    Two paths of 14 dashes and up to five distractors of 4 curve through the picture without meeting, as in the hard
    version of the Long Range Arena. For label 1 the dots mark both ends of one long path, for label 0 one end of each:
    of those pairs the one whose distance is nearest to that of the true ends, so that how far the dots are apart tells
    next to nothing.

    Args:
        n_samples: P; the labels are balanced and shuffled.
        generator: source of everything random.
        size: pixels of a side, at least 32; the paths are the same at every size, drawn finer.

    Returns:
        pictures (P, size, size) float32 in [0, 1], labels (P,).

    Raises:
        TypeError, ValueError: naming the argument.

    >>> pictures, labels = pathfinder(6, generator=np.random.default_rng(0))
    >>> pictures.shape, np.bincount(labels)
    ((6, 32, 32), array([3, 3]))
    """
    n_samples = positive_int("n_samples", n_samples)
    size = positive_int("size", size, minimum=32)
    labels = generator.permutation(np.arange(n_samples) % 2)
    pictures = np.zeros((n_samples, size, size), np.float32)
    done = 0
    while done < n_samples:
        count = min(_BATCH, max(32, n_samples - done))
        longs, shorts = (part[: n_samples - done] for part in _paths(count, generator))
        batch = slice(done, done + len(longs))
        _draw(pictures[batch], np.concatenate([_dashes(longs), _dashes(shorts)], axis=1), _PEN)
        _draw(pictures[batch], _dots(longs, labels[batch]), _DOT)
        done += len(longs)
    return pictures, labels


# Points are complex numbers: x + iy.


def _paths(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of long (B, 2, 15) and short paths (B, 5, 5) of at most ``count`` pictures: where both long ones fit.

    A short path that found no place is NaN.
    """
    blocked = np.zeros((count, _FRAME, _FRAME), bool)
    paths = []
    for index, n_dashes in enumerate([_LONG] * 2 + [_SHORT] * _DISTRACTORS):
        path = np.full((len(blocked), n_dashes + 1), np.nan, np.complex128)
        missing = np.arange(len(blocked))
        for _ in range(_TRIES):
            grown, vertices = _grow_paths(blocked[missing], n_dashes, generator)
            path[missing[grown]] = vertices
            missing = np.delete(missing, grown)
        paths.append(path)
        if index < 2:  # drop the pictures that have no place for it
            blocked = np.delete(blocked, missing, axis=0)
            paths = [np.delete(path, missing, axis=0) for path in paths]
        _block(blocked, paths[-1])
    return np.stack(paths[:2], axis=1), np.stack(paths[2:], axis=1)


def _grow_paths(blocked: np.ndarray, n_dashes: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Try once to grow a path in each picture: where it succeeded (G,), and the vertices there (G, n_dashes + 1)."""
    start = generator.uniform(_DOT, _FRAME - _DOT, (2, len(blocked), _CANDIDATES))
    free = ~_is_blocked(blocked, start[0] + 1j * start[1])
    path, grown = _first_free(start[0] + 1j * start[1], free)[:, None], np.flatnonzero(free.any(axis=1))
    heading = generator.uniform(0, 2 * np.pi, len(grown))
    for step in range(n_dashes):
        # several ways on, in random order: the first that is free is taken
        angle = heading[:, None] + generator.uniform(-_TURN, _TURN, (len(grown), _CANDIDATES))  # (G C)
        stride = (_DASH + _GAP) * np.exp(1j * angle)
        end = path[:, -1:] + stride
        free = np.maximum(np.abs(end.real - _FRAME / 2), np.abs(end.imag - _FRAME / 2)) < _FRAME / 2 - _DOT
        free &= ~_is_blocked(blocked, end, grown) & ~_is_blocked(blocked, end - stride / 2, grown)
        if step > 1:
            apart = end[:, :, None] - path[:, None, :-2]  # (G C step-1)
            free &= (apart.real**2 + apart.imag**2).min(axis=2) > _CLEARANCE**2
        some = free.any(axis=1)
        path = np.concatenate([path[some], _first_free(end, free)[:, None]], axis=1)
        heading, grown = _first_free(angle, free), grown[some]
    return grown, path


def _first_free(values: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Of each row of ``values`` (G, C) the first that is free, without the rows where none is."""
    some = np.flatnonzero(free.any(axis=1))
    return values[some, free[some].argmax(axis=1)]


def _is_blocked(blocked: np.ndarray, points: np.ndarray, pictures: np.ndarray | None = None) -> np.ndarray:
    """Whether points (G, C) of the named pictures lie too near to a path; points outside count as on the border."""
    row = np.arange(len(blocked)) if pictures is None else pictures
    x, y = (np.clip(part, 0, _FRAME - 1).astype(np.intp) for part in (points.real, points.imag))
    return blocked[row[:, None], y, x]


def _block(blocked: np.ndarray, path: np.ndarray) -> None:
    """Mark the cells within the clearance of a path's vertices and of the middles between them."""
    row = np.flatnonzero(np.isfinite(path).all(axis=1))
    points = np.concatenate([path[row], (path[row, 1:] + path[row, :-1]) / 2], axis=1)  # (R V)
    reach = np.arange(-int(_CLEARANCE), int(_CLEARANCE) + 1)
    offsets = (reach[:, None] + 1j * reach).ravel()
    cells = points[:, :, None] + offsets[np.abs(offsets) <= _CLEARANCE]  # (R V O)
    x, y = (np.clip(part, 0, _FRAME - 1).astype(np.intp) for part in (cells.real, cells.imag))
    blocked[row[:, None, None], y, x] = True


def _dashes(paths: np.ndarray) -> np.ndarray:
    """Points along all dashes (B, P) of paths (B, K, V): half a gap is cut off each end, and the pen's round tip."""
    start, end = paths[:, :, :-1, None], paths[:, :, 1:, None]  # (B K V-1 1)
    cut = (_GAP / 2 + _PEN) / (_DASH + _GAP)
    points = start + np.linspace(cut, 1 - cut, 5) * (end - start)
    return points.reshape(len(paths), points[0].size)


def _dots(longs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Where the two dots are (B, 2)."""
    ends = longs[:, :, [0, -1]]  # (B path end)
    true = np.abs(ends[:, 0, 0] - ends[:, 0, 1])
    false = np.abs(ends[:, 0, :, None] - ends[:, 1, None])  # (B end end)
    first, second = np.divmod(np.abs(false - true[:, None, None]).reshape(-1, 4).argmin(axis=1), 2)
    row = np.arange(len(longs))
    different = np.stack([ends[row, 0, first], ends[row, 1, second]], axis=1)
    return np.where(labels[:, None] == 1, ends[:, 0], different)


def _draw(pictures: np.ndarray, points: np.ndarray, radius: float) -> None:
    """Press a round pen on points (B, P) of pictures (B, size, size), with soft edges; NaN draws nothing."""
    size = pictures.shape[1]
    picture, column = np.nonzero(np.isfinite(points))
    at = points[picture, column] * size / _FRAME - (0.5 + 0.5j)  # in pixels, whose middles are whole numbers
    radius = radius * size / _FRAME + 0.5
    reach = np.arange(-int(np.ceil(radius)), int(np.ceil(radius)) + 1)
    offsets = (reach[:, None] + 1j * reach).ravel()
    pixels = np.rint(at)[:, None] + offsets[np.abs(offsets) < radius + 1]  # (P O)
    ink = np.clip(radius - np.abs(pixels - at[:, None]), 0, 1).astype(np.float32)
    x, y = pixels.real.astype(np.intp), pixels.imag.astype(np.intp)
    drawn = (ink > 0) & (x >= 0) & (x < size) & (y >= 0) & (y < size)
    flat = (picture[:, None] * size + y) * size + x
    np.maximum.at(pictures.reshape(-1), flat[drawn], ink[drawn])
