r"""The task scalogram: how much every frequency matters to filters of every width, and how wide they should be.

A power spectrum says *where* a task listens. How *sharp* a filter there should be is a second question: wide filters
measure a broad difference precisely, only narrow ones tell lines apart, and an event is remembered no longer than the
filter rings. One number per filter settles it, its resolution :math:`\delta`, the decay of its poles per sample: the
filter is about :math:`\delta` rad/sample wide and remembers :math:`1/\delta` samples.

For every :math:`\delta` of a grid a bank of such filters is laid over all frequencies; a Gaussian process explains the
targets by what the bank makes of the input, and its evidence says how probable the targets are at that resolution.

*Second order*, what a filter gives is the logarithm of its output's energy. White noise of L samples through a filter
of power response :math:`|H|^2` has

.. math:: M = \frac{(\sum_j |H(\omega_j)|^2)^2}{\sum_j |H(\omega_j)|^4}

independent complex coefficients, so the log energy has variance :math:`1/M`: for a single pole
:math:`M = L \tanh\delta \approx \delta L`, :math:`\delta L/\pi` of them within the half-power band. (The taper of the
periodogram makes neighbors dependent and leaves M/1.94.) A difference as broad as the band is measured to
:math:`1/\sqrt M`; one that is narrower is diluted. The evidence weighs the two.

*First order*, the target is a linear functional :math:`\sum_t w_t u_t` of the sequence, and what a filter gives is its
output at the last step, in two phases. Functionals that a bank can make of these have weights that follow the filters'
impulse responses backwards from the end: a cluster of poles remembers best what lies about :math:`3/\delta` steps back.
In frequency such a w is correlated over :math:`\delta`: a functional that lasts T steps is smooth over 1/T.

The plane and the banks of filters are here; :func:`~tdi_lib.spectrum.estimate_task_spectrum` fills the one by the
others.

Shapes: ``P`` samples, ``L`` time steps, ``D`` input channels, ``K`` targets, ``F`` frequencies, ``R`` resolutions.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import ArrayLike

from tdi_lib.filters import dft_response, focused_weights, impulse_response
from tdi_lib.samples import one_of, positive_int, real_array, real_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Scalogram", "resolution_grid"]

# ---- the plane -----------------------------------------------------------------------------------


WIDEST = 0.4  # per sample
N_COLUMNS = 256  # of a picture


@dataclasses.dataclass(frozen=True)
class Scalogram:
    r"""A task's importance over frequency and resolution, and the evidence of every resolution.

    Attributes:
        omega: frequencies (F,) on [0, pi], rad/sample.
        resolutions: decays :math:`\delta` (R,) of the filters' poles per sample, ascending.
        importance: output power that filters of each resolution should have there (R, F): non-negative, every row of
            unit mean.
        evidence: log evidence of every resolution (R,), nats per sample and target.
        order: ``first`` or ``second``.
        weight: how many independent labels the evidence is an average of.

    Raises:
        TypeError, ValueError: naming the attribute.

    >>> plane = Scalogram(np.linspace(0, np.pi, 9), [0.1, 0.2], np.ones((2, 9)), [-1.0, -1.1], "second", 50)
    >>> plane.resolution, plane.posterior.round(3)
    (0.1, array([0.993, 0.007]))
    """

    omega: np.ndarray
    resolutions: np.ndarray
    importance: np.ndarray
    evidence: np.ndarray
    order: str
    weight: float

    def __post_init__(self) -> None:
        for name, what in (("omega", "(F,)"), ("resolutions", "(R,)"), ("evidence", "(R,)"), ("importance", "(R, F)")):
            array = real_array(name, getattr(self, name), ndim=(len(what) // 3,), what=what)
            object.__setattr__(self, name, array)
        check_resolutions(self.resolutions, 0)
        shape = (self.resolutions.size, self.omega.size)
        if self.importance.shape != shape or self.evidence.size != shape[0]:
            raise ValueError(
                f"importance and evidence must have shapes {shape} and {shape[:1]}, as resolutions and omega have it, "
                f"got {self.importance.shape} and {self.evidence.shape}"
            )
        if (self.importance < 0).any() or not np.allclose(self.importance.mean(axis=1), 1):
            raise ValueError("importance must be non-negative and of unit mean in every row")
        one_of("order", self.order, ("first", "second"))
        real_number("weight", self.weight, low=0.0)

    @property
    def posterior(self) -> np.ndarray:
        """Probability of every resolution (R,), all being alike before."""
        return np.asarray(scipy.special.softmax(self.weight * self.evidence))

    @property
    def resolution(self) -> float:
        """The resolution of the largest evidence."""
        return float(self.resolutions[self.evidence.argmax()])

    @property
    def edges(self) -> np.ndarray:
        """Borders between the resolutions (R + 1,), halfway on a logarithmic scale; a single one has no width."""
        inner = np.sqrt(self.resolutions[1:] * self.resolutions[:-1])
        first, last = (inner[0], inner[-1]) if inner.size else (self.resolutions[0], self.resolutions[0])
        return np.r_[self.resolutions[0] ** 2 / first, inner, self.resolutions[-1] ** 2 / last]

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the plane, importance over frequency and resolution, and the evidence beside it; returns its axes.

        Every row is relative to its own maximum; of many frequencies several share a column, the largest one counts.
        """
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        edges = self.edges if self.resolutions.size > 1 else self.resolutions * np.array([0.7, 1.4])
        first = np.arange(0, self.omega.size, -(-self.omega.size // N_COLUMNS))
        borders = np.r_[self.omega[0], (self.omega[first[1:]] + self.omega[first[1:] - 1]) / 2, self.omega[-1]]
        share = np.maximum.reduceat(self.importance, first, axis=1) / self.importance.max(axis=1, keepdims=True)
        # drawn as vectors: a raster in an SVG is compressed by whatever the machine has; edges close the seams
        ax.pcolormesh(borders, edges, share, cmap="cividis", edgecolors="face", linewidth=0.2)
        ax.set(
            xlabel="frequency ω (rad/sample)",
            ylabel="resolution δ (per sample)",
            yscale="log",
            xlim=(self.omega[0], self.omega[-1]),
        )
        ax.grid(False)
        side = ax.inset_axes((1.04, 0, 0.22, 1), sharey=ax)
        side.plot(self.evidence, self.resolutions, "o-", color="#0b3c6f")
        side.axhline(self.resolution, color="#d55e00", linestyle="--")
        side.tick_params(labelleft=False)
        side.set_xlabel("evidence\n(nats/sample)")
        return ax


def resolution_grid(length: int) -> np.ndarray:
    """Resolutions 0.4, 0.2, 0.1 ... down to the last that sequences of ``length`` steps can tell, 1 / length.

    >>> resolution_grid(16)
    array([0.1, 0.2, 0.4])
    """
    length = positive_int("length", length, minimum=8)
    return np.asarray(WIDEST * 0.5 ** np.arange(int(math.log2(WIDEST * length)), -1, -1))


def check_resolutions(resolutions: ArrayLike | str, length: int) -> np.ndarray:
    """Resolutions (R,), ascending: one number, several, or ``auto``, those of sequences of ``length`` steps."""
    if isinstance(resolutions, str):
        one_of("resolutions", resolutions, ("auto",))
        return resolution_grid(length)
    decays = np.atleast_1d(real_array("resolutions", resolutions, ndim=(0, 1), what="decays per sample (R,)"))
    if (np.diff(decays) <= 0).any() or decays[0] < 1e-6 or decays[-1] > 10:
        raise ValueError(f"resolutions must ascend within [1e-6, 10] per sample, got {decays.tolist()}")
    return decays


# ---- banks of filters ----------------------------------------------------------------------------


N_PAIRS = 4  # poles of one filter; more change nothing
N_CENTERS = 256  # filters worked on at once
QUADRATURE = (-math.pi / 4, math.pi / 4)  # two phases; at 0 and pi, where there is but one, both find it


def _centers(decay: float, n_freq: int) -> np.ndarray:
    """Centers of a bank (C,): the frequencies of the periodogram, half a width apart where these are closer."""
    grid = np.linspace(0, np.pi, n_freq)
    step = max(int(decay / 2 / grid[1]), 1)
    return grid[::step] if (n_freq - 1) % step == 0 else np.append(grid[::step], grid[-1])


def _filters(
    decay: float, centers: np.ndarray, input_power: np.ndarray, phase: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Log-poles and residues (C, N) of the filters that a layer would be given: Capon's, at unit output power."""
    poles = -decay + 1j * (centers[:, None] + decay * np.linspace(-1, 1, N_PAIRS))
    return poles, focused_weights(poles, centers, np.full(centers.size, phase), input_power=input_power)


def gram_matrix(features: np.ndarray) -> np.ndarray:
    """Covariance (P, P) of what is linear in features (P, ...), in their own units."""
    flat = (features - features.mean(axis=0)).reshape(len(features), -1)
    return np.asarray(flat @ flat.T)


def band_energies(periodogram: np.ndarray, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Output energies (P, C, D) of a bank of filters on inputs of a periodogram (P, F, D), and its centers (C,)."""
    n_samples, n_freq, n_channels = periodogram.shape
    centers = _centers(decay, n_freq)
    energies = np.empty((n_samples, centers.size, n_channels))
    for channel in range(n_channels):
        power = periodogram[:, :, channel]
        mean = power.mean(axis=0)
        for start in range(0, centers.size, N_CENTERS):
            part = slice(start, start + N_CENTERS)
            response = dft_response(*_filters(decay, centers[part], mean / mean.mean()), n_frequencies=n_freq)
            energies[:, part, channel] = power @ (np.abs(response) ** 2).T
    return energies, centers


def from_the_end(inputs: np.ndarray, ends: np.ndarray | None) -> np.ndarray:
    """Inputs (P, L, D) by their distance from the last step, less their mean over samples."""
    length = inputs.shape[1]
    last = np.full(len(inputs), length) if ends is None else ends
    back = (last[:, None] - 1 - np.arange(length)) % length  # beyond the first step what pads the end: the mean
    lagged = np.take_along_axis(inputs, back[:, :, None], axis=1)
    return np.asarray(lagged - lagged.mean(axis=0))


def last_outputs(lagged: np.ndarray, mean_power: np.ndarray, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Covariance (P, P) of functionals that are linear in a bank's last outputs, and how far back these reach (L).

    Lagged inputs (P, L, D), their power (F, D); the reach is the root mean square of unit impulse responses.
    """
    n_samples, length, _ = lagged.shape
    centers = _centers(decay, len(mean_power))
    lagged = lagged / np.maximum(lagged.std(axis=(0, 1)), 1e-300)  # every channel in its own units
    gram, reach = np.zeros((n_samples, n_samples)), np.zeros(length)
    for channel, power in enumerate(mean_power.T):
        for start in range(0, centers.size, N_CENTERS):
            for phase in QUADRATURE:
                poles, residues = _filters(decay, centers[start : start + N_CENTERS], power / power.mean(), phase)
                kernels = impulse_response(poles, residues, length=length)  # (C L)
                gram += gram_matrix(lagged[:, :, channel] @ kernels.T)
                reach += (kernels**2 / (kernels**2).sum(axis=1, keepdims=True)).sum(axis=0)
    return gram, np.sqrt(reach / reach.max())
