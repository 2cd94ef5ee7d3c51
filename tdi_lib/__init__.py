"""Task-dependent initialisation of state space models: estimate a task's spectrum, match |H|^2 to it, then train."""

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
