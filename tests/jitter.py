"""Stand in for another processor: move every random draw and every array that enters torch by one part in 1e12.

`PYTHONSTARTUP=tests/jitter.py TDI_JITTER=1` runs this before the first cell of a notebook (`make test-cpus` does).
The noise depends on the seed TDI_JITTER and on the numbers it moves, so one array always becomes the same other one.
What a notebook prints and claims must survive it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch

SIZE = 1e-12
REAL_VALUED = {"normal", "standard_normal", "uniform", "random", "exponential", "gamma", "multivariate_normal"}
_default_rng = np.random.default_rng


def jittered(values: np.ndarray, seed: int) -> np.ndarray:
    """The array with relative noise of size 1e-12; in float32, where that rounds away, one ulp in a few places."""
    if values.dtype not in (np.float32, np.float64) or (values == np.round(values)).all():
        return values  # nothing, or labels and counts
    noise = _default_rng([seed, zlib.crc32(np.ascontiguousarray(values).tobytes())])
    if values.dtype == np.float64:
        return np.asarray(values * (1 + SIZE * noise.standard_normal(values.shape)))
    moved = values.copy()
    places = noise.integers(values.size, size=1 + int(values.size * SIZE / np.finfo(np.float32).eps))
    moved.flat[places] = np.nextafter(moved.flat[places], np.float32(np.inf))
    return np.asarray(moved)


class JitteredGenerator(np.random.Generator):
    """NumPy's generator with its real-valued draws jittered; whole numbers, shuffles and choices are as they were."""

    seed = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return _moved(found, self.seed) if name in REAL_VALUED else found


def _moved(function: Callable[..., Any], seed: int) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        drawn = function(*args, **options)
        moved = jittered(np.asarray(drawn), seed)
        return moved if isinstance(drawn, np.ndarray) else type(drawn)(moved)

    return call


def _entering(function: Callable[..., Any], seed: int) -> Callable[..., Any]:
    @wraps(function)
    def call(data: Any, *args: Any, **options: Any) -> Any:
        return function(jittered(data, seed) if isinstance(data, np.ndarray) else data, *args, **options)

    return call


def install(seed: int) -> None:
    """Jitter from now on, in this process."""
    JitteredGenerator.seed = seed
    np.random.default_rng = lambda source=None: JitteredGenerator(_default_rng(source).bit_generator)  # type: ignore
    torch.as_tensor, torch.tensor = _entering(torch.as_tensor, seed), _entering(torch.tensor, seed)


if os.environ.get("TDI_JITTER"):
    install(int(os.environ["TDI_JITTER"]))
