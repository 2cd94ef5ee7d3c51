"""Task-dependent initialisation of state space models: estimate a task's spectrum, match |H|^2 to it, then train."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdi_lib.diagnose import Diagnosis
    from tdi_lib.matching import MatchReport, match_power_spectrum_, tdi_init_
    from tdi_lib.model import S4DLayer, SequenceModel
    from tdi_lib.readers import ReadError, Samples, read
    from tdi_lib.spectrum import TaskSpectrum, estimate_task_spectrum
    from tdi_lib.ssm import DiagonalSSM
    from tdi_lib.theory import kernel_spectrum, learning_curve, ssm_kernel
    from tdi_lib.toeplitz import toeplitz_singular_values

__all__ = [
    "Diagnosis",
    "DiagonalSSM",
    "MatchReport",
    "ReadError",
    "S4DLayer",
    "Samples",
    "SequenceModel",
    "TaskSpectrum",
    "estimate_task_spectrum",
    "kernel_spectrum",
    "learning_curve",
    "match_power_spectrum_",
    "read",
    "ssm_kernel",
    "tdi_init_",
    "toeplitz_singular_values",
]

# Where each name lives. It is fetched when it is first asked for (PEP 562), so that an import costs what it uses.
_HOMES = {
    "Diagnosis": "diagnose",
    "DiagonalSSM": "ssm",
    "MatchReport": "matching",
    "ReadError": "readers",
    "S4DLayer": "model",
    "Samples": "readers",
    "SequenceModel": "model",
    "TaskSpectrum": "spectrum",
    "estimate_task_spectrum": "spectrum",
    "kernel_spectrum": "theory",
    "learning_curve": "theory",
    "match_power_spectrum_": "matching",
    "read": "readers",
    "ssm_kernel": "theory",
    "tdi_init_": "matching",
    "toeplitz_singular_values": "toeplitz",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
