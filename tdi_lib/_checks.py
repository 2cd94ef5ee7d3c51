"""Argument checks shared by the public functions: each error names the argument, what came and what was expected."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike


def positive_int(name: str, value: object, *, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def real_number(name: str, value: object, *, low: float = -math.inf, high: float = math.inf) -> float:
    """Return ``value`` as a finite float in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__} {value!r}")
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} must be a finite number in [{low}, {high}], got {value}")
    return float(value)


def choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def real_array(name: str, value: ArrayLike, *, ndim: tuple[int, ...], what: str, finite: bool = True) -> np.ndarray:
    """Return ``value`` as a (finite) float64 array with one of the allowed numbers of axes."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged nested lists
        raise ValueError(f"{name} must be {what}, got a ragged sequence") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers ({what}), got dtype {array.dtype}")
    if array.ndim not in ndim:
        raise ValueError(f"{name} must be {what}, got shape {array.shape}")
    array = array.astype(np.float64)
    if array.size == 0:
        raise ValueError(f"{name} must not be empty ({what}), got shape {array.shape}")
    if finite and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite of {array.size} values")
    return array


def real_tensor(name: str, value: object, axes: str, sizes: dict[str, int]) -> None:
    """Raise unless ``value`` is a real floating tensor whose axes are named by ``axes`` ("B H L"), with known sizes."""
    expected = "(" + ", ".join(str(sizes.get(axis, axis)) for axis in axes.split()) + ")"
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a tensor of shape {expected}, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a real floating tensor, got {value.dtype}")
    wanted = [sizes.get(axis) for axis in axes.split()]
    fits = value.ndim == len(wanted) and all(w in (None, s) for w, s in zip(wanted, value.shape, strict=True))
    if not fits or value.numel() == 0:
        raise ValueError(f"{name} must be a non-empty tensor of shape {expected}, got {tuple(value.shape)}")


def module(name: str, value: object, kind: type | tuple[type, ...]) -> None:
    """Raise unless ``value`` is an instance of ``kind``."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(k.__name__ for k in kinds)
        raise TypeError(f"{name} must be a {expected}, got {type(value).__name__}")
