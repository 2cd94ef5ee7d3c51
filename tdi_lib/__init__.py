"""Task-dependent initialisation of state space models: estimate a task's spectrum, match |H|^2 to it, then train."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdi_lib.matching import MatchReport, match_power_spectrum_, tdi_init_
    from tdi_lib.model import S4DLayer, SequenceModel
    from tdi_lib.spectrum import TaskSpectrum, estimate_task_spectrum
    from tdi_lib.ssm import DiagonalSSM
    from tdi_lib.theory import kernel_spectrum, learning_curve, ssm_kernel
    from tdi_lib.toeplitz import toeplitz_singular_values

__all__ = [
    "DiagonalSSM",
    "MatchReport",
    "S4DLayer",
    "SequenceModel",
    "TaskSpectrum",
    "estimate_task_spectrum",
    "kernel_spectrum",
    "learning_curve",
    "match_power_spectrum_",
    "ssm_kernel",
    "tdi_init_",
    "toeplitz_singular_values",
]

_MODULES = ("matching", "model", "spectrum", "ssm", "theory", "toeplitz")


def __getattr__(name: str) -> Any:
    # Looked up when asked for: a process that needs a store, or a list of trials, need not wait for torch.
    if name in __all__:
        for module in map(importlib.import_module, (f"tdi_lib.{module}" for module in _MODULES)):
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module 'tdi_lib' has no attribute {name!r}")
