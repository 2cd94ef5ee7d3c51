"""Task-dependent initialization of state space models: estimate a task's spectrum, match |H|^2 to it, then train."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tdi_lib.app.diagnose import Diagnosis
    from tdi_lib.app.files import ReadError, Samples, read
    from tdi_lib.app.train import Trained, train
    from tdi_lib.choice import choose_start, named_starts, start_evidence
    from tdi_lib.readout import ridge_readout_
    from tdi_lib.scalogram import Scalogram
    from tdi_lib.spectrum import TaskSpectrum, estimate_task_spectrum
    from tdi_lib.ssm import DiagonalSSM, S4DLayer, SequenceModel
    from tdi_lib.tdi import (
        MatchReport,
        flat_init_,
        gains_init_,
        match_power_spectrum_,
        place_scalogram_,
        tdi_init_,
    )
    from tdi_lib.theory import kernel_spectrum, learning_curve, ssm_kernel, toeplitz_singular_values

__all__ = [
    "Diagnosis",
    "DiagonalSSM",
    "MatchReport",
    "ReadError",
    "S4DLayer",
    "Samples",
    "Scalogram",
    "SequenceModel",
    "TaskSpectrum",
    "Trained",
    "choose_start",
    "estimate_task_spectrum",
    "flat_init_",
    "gains_init_",
    "kernel_spectrum",
    "learning_curve",
    "match_power_spectrum_",
    "named_starts",
    "place_scalogram_",
    "read",
    "ridge_readout_",
    "ssm_kernel",
    "start_evidence",
    "tdi_init_",
    "toeplitz_singular_values",
    "train",
]

# Where each name lives. It is fetched when it is first asked for (PEP 562), so that an import costs what it uses.
_HOMES = {
    "Diagnosis": "app.diagnose",
    "DiagonalSSM": "ssm",
    "MatchReport": "tdi",
    "ReadError": "app.files",
    "S4DLayer": "ssm",
    "Samples": "app.files",
    "Scalogram": "scalogram",
    "SequenceModel": "ssm",
    "TaskSpectrum": "spectrum",
    "Trained": "app.train",
    "choose_start": "choice",
    "estimate_task_spectrum": "spectrum",
    "flat_init_": "tdi",
    "gains_init_": "tdi",
    "kernel_spectrum": "theory",
    "learning_curve": "theory",
    "match_power_spectrum_": "tdi",
    "named_starts": "choice",
    "place_scalogram_": "tdi",
    "read": "app.files",
    "ridge_readout_": "readout",
    "ssm_kernel": "theory",
    "start_evidence": "choice",
    "tdi_init_": "tdi",
    "toeplitz_singular_values": "theory",
    "train": "app.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
