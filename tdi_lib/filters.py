r"""A layer as poles and residues; other people's layers; kernel and frequency response in NumPy.

A layer that is to be matched shows its discrete poles :math:`a_n` and its gains, and takes new ones. There are two
kinds, each a small protocol that any module can meet by itself:

- :class:`SisoSSM`, H filters side by side (S4D): :math:`k_{h,l} = 2\,\mathrm{Re} \sum_n c_{hn} a_{hn}^l`;
- :class:`MimoSSM`, modes shared by all inputs and outputs (S5, LRU):
  :math:`K_l = 2\,\mathrm{Re} \sum_n c_n b_n^\top a_n^l`, a matrix (H, D) for every lag.

A pole stands for a conjugate pair throughout. A layer that takes the real part of a sum over modes *without* the
factor two, as LRU and s5-pytorch do, has half of what it stores as its gains: the adapters convert.

:func:`find_ssms` recognizes, by the names of their parameters, the S4D layer of the original S4 code (arXiv
2206.11893), S5 of the package s5-pytorch (arXiv 2208.04933) and layers written after the LRU's paper (arXiv
2303.06349).

Shapes: ``H`` outputs (channels), ``D`` inputs, ``N`` poles, ``L`` lags, ``F`` frequencies in rad/sample. Tensors come
in complex128 on the CPU from the adapters here; writing rounds to the layer's own dtype and device.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["LRUAdapter", "MimoSSM", "S4DAdapter", "S5Adapter", "SSMAdapter", "SisoSSM", "adapt", "find_ssms"]

# ---- layers --------------------------------------------------------------------------------------


_LEAST_FREQUENCY = 1e-4  # rad/sample; an LRU stores the logarithm of a frequency


@runtime_checkable
class SisoSSM(Protocol):
    r"""H filters side by side, channel h reading input h alone: :math:`k_{h,l} = 2\,\mathrm{Re}\sum_n c_{hn} a_{hn}^l`.

    :class:`~tdi_lib.ssm.DiagonalSSM` is one.
    """

    @property
    def log_poles(self) -> Tensor:
        r"""Log-poles :math:`\log a` (H, N), complex: minus the decay per sample, and the frequency in rad/sample."""

    @property
    def residues(self) -> Tensor:
        """Residues c (H, N), complex, input and output weights in one."""

    def set_log_poles_(self, log_poles: Tensor, residues: Tensor) -> None:
        """Place log-poles and residues, both (H, N), in place."""


@runtime_checkable
class MimoSSM(Protocol):
    r"""N modes that read all D inputs and write all H outputs: :math:`K_l = 2\,\mathrm{Re}\sum_n c_n b_n^\top a_n^l`.

    A layer that also runs backwards in time gives and takes output gains (2, H, N), forward first.
    """

    @property
    def log_poles(self) -> Tensor:
        r"""Log-poles :math:`\log a` (N,), complex."""

    @property
    def input_gains(self) -> Tensor:
        """Rows b (N, D), complex."""

    @property
    def output_gains(self) -> Tensor:
        """Columns c (H, N) or (2, H, N), complex."""

    def set_modes_(self, log_poles: Tensor, input_gains: Tensor, output_gains: Tensor) -> None:
        """Place the modes in place; shapes as they are read."""


SSMAdapter = SisoSSM | MimoSSM
"""What the matching works on."""


@dataclasses.dataclass(frozen=True)
class S4DAdapter:
    r"""The S4D kernel of the original code: ``log_dt`` (H), ``log_A_real``, ``A_imag`` (H, N), ``C`` (H, N, 2).

    :math:`A = -e^{\texttt{log\_A\_real}} + i\,\texttt{A\_imag}`, zero-order hold,
    :math:`k_l = 2\,\mathrm{Re}\sum_n C_n \frac{a_n - 1}{A_n} a_n^l` with :math:`a_n = e^{\Delta A_n}`. The steps are
    kept.
    """

    module: Any

    def __post_init__(self) -> None:
        module = self.module
        shape = (*module.log_dt.shape, *module.A_imag.shape[-1:])
        wanted = {"log_A_real": shape, "A_imag": shape, "C": (*shape, 2)}
        wrong = {name: tuple(getattr(module, name).shape) for name in wanted}
        if module.log_dt.ndim != 1 or wrong != wanted:
            raise ValueError(
                f"model must hold an S4D kernel with log_dt (H,), log_A_real and A_imag (H, N) and C (H, N, 2), "
                f"got log_dt {tuple(module.log_dt.shape)}, " + ", ".join(f"{k} {v}" for k, v in wrong.items())
            )
        if "B" in _own_tensors(module) or getattr(module, "disc", "zoh") != "zoh":
            raise ValueError(
                "model must hold an S4D kernel with zero-order hold and no B (the minimal one of the original code), "
                f"got a {type(module).__name__} with more; give it the methods of SisoSSM"
            )

    @property
    def log_poles(self) -> Tensor:
        """Log-poles (H, N)."""
        m = self.module
        return _wide(m.log_dt).exp()[:, None] * torch.complex(-_wide(m.log_A_real).exp(), _wide(m.A_imag))

    @property
    def residues(self) -> Tensor:
        """Residues (H, N)."""
        return torch.view_as_complex(_wide(self.module.C).contiguous()) * self._hold(self.log_poles)

    def _hold(self, log_poles: Tensor) -> Tensor:
        """(a - 1) / A."""
        return torch.expm1(log_poles) / log_poles * _wide(self.module.log_dt).exp()[:, None]

    @torch.no_grad()
    def set_log_poles_(self, log_poles: Tensor, residues: Tensor) -> None:
        """Place log-poles and residues (H, N)."""
        m = self.module
        a = log_poles / _wide(m.log_dt).exp()[:, None]
        m.log_A_real.copy_((-a.real).log())
        m.A_imag.copy_(a.imag)
        m.C.copy_(torch.view_as_real(residues / self._hold(log_poles)))


@dataclasses.dataclass(frozen=True)
class S5Adapter:
    r"""``S5SSM`` of the package s5-pytorch: ``Lambda``, ``log_step`` (N), ``B`` (N, D, 2), ``C`` (H, N), complex.

    It takes the real part of the sum over all N modes, once: at its own initialization the modes come in conjugate
    pairs, but nothing ties them. (The original in JAX with ``conj_sym`` keeps one of each pair and takes twice the real
    part.) Both of its discretizations; with ``bidir`` ``C`` is (H, 2N). The steps are kept.
    """

    module: Any

    def __post_init__(self) -> None:
        if getattr(self.module, "liquid", False) or getattr(self.module, "degree", 1) != 1:
            raise ValueError("model must hold a linear S5, got liquid=True or a degree other than 1: it has no poles")
        b, c = self.module.B, self.module.C
        if b.ndim != 3 or b.shape[-1] != 2 or not (c.is_complex() and self.module.Lambda.is_complex()):
            raise ValueError(
                f"model must hold an S5 with B (N, D, 2), real, and complex Lambda and C, as s5-pytorch has it, got B "
                f"{tuple(b.shape)} {b.dtype}, C {tuple(c.shape)} {c.dtype}"
            )

    @property
    def _step(self) -> Tensor:
        return _wide(self.module.log_step).exp()

    @property
    def _bilinear(self) -> bool:
        rule = getattr(self.module.discretize, "__name__", "")
        if rule not in ("discretize_zoh", "discretize_bilinear"):
            raise ValueError(
                f"model must hold an S5 with zero-order hold or the bilinear rule, got {rule or 'another'}"
            )
        return rule == "discretize_bilinear"

    @property
    def log_poles(self) -> Tensor:
        """Log-poles (N,)."""
        z = _wide(self.module.Lambda) * self._step
        return 2 * torch.atanh(z / 2) if self._bilinear else z

    def _hold(self, log_poles: Tensor) -> Tensor:
        """What the rule multiplies B by."""
        if self._bilinear:  # step / (1 - z/2) with z/2 = tanh(log a / 2)
            return self._step / (1 - torch.tanh(log_poles / 2))
        return torch.expm1(log_poles) / log_poles * self._step

    @property
    def input_gains(self) -> Tensor:
        """Input gains (N, D)."""
        b = torch.view_as_complex(_wide(self.module.B).contiguous())
        return self._hold(self.log_poles)[:, None] * b

    @property
    def output_gains(self) -> Tensor:
        """Output gains (H, N), or (2, H, N) with ``bidir``."""
        c = _wide(self.module.C) / 2  # the real part is taken once
        return torch.stack(c.chunk(2, dim=1)) if self.module.bidir else c

    @torch.no_grad()
    def set_modes_(self, log_poles: Tensor, input_gains: Tensor, output_gains: Tensor) -> None:
        """Place the modes."""
        m = self.module
        m.Lambda.copy_((2 * torch.tanh(log_poles / 2) if self._bilinear else log_poles) / self._step)
        b, c = _balanced(input_gains / self._hold(log_poles)[:, None], 2 * output_gains)
        m.B.copy_(torch.view_as_real(b))
        m.C.copy_(torch.cat(tuple(c), dim=1) if m.bidir else c)


@dataclasses.dataclass(frozen=True)
class LRUAdapter:
    r"""An LRU: ``nu_log``, ``theta_log``, ``gamma_log`` (N), ``B_re``, ``B_im`` (N, D), ``C_re``, ``C_im`` (H, N).

    :math:`\lambda = \exp(-e^{\nu} + i e^{\theta})`, inputs scaled by :math:`e^{\gamma}`, the real part taken once. A
    frequency is stored as its logarithm: a negative one is turned to its mirror image, which the real part cannot
    tell apart, and one at zero is put at 1e-4 rad/sample. :math:`\gamma` is set to the paper's normalization,
    :math:`\tfrac12\log(1 - |\lambda|^2)`.
    """

    module: Any

    @property
    def log_poles(self) -> Tensor:
        """Log-poles (N,)."""
        return torch.complex(-_wide(self.module.nu_log).exp(), _wide(self.module.theta_log).exp())

    @property
    def input_gains(self) -> Tensor:
        """Input gains (N, D)."""
        m = self.module
        return _wide(m.gamma_log).exp()[:, None] * torch.complex(_wide(m.B_re), _wide(m.B_im))

    @property
    def output_gains(self) -> Tensor:
        """Output gains (H, N)."""
        return torch.complex(_wide(self.module.C_re), _wide(self.module.C_im)) / 2

    @torch.no_grad()
    def set_modes_(self, log_poles: Tensor, input_gains: Tensor, output_gains: Tensor) -> None:
        """Place the modes."""
        m = self.module
        mirror = log_poles.imag < 0
        b = torch.where(mirror[:, None], input_gains.conj(), input_gains)
        c = torch.where(mirror, output_gains.conj(), output_gains)
        gamma = (-torch.expm1(2 * log_poles.real)).sqrt()
        b, c = _balanced(b / gamma[:, None], 2 * c)
        m.nu_log.copy_((-log_poles.real).log())
        m.theta_log.copy_(log_poles.imag.abs().clamp(min=_LEAST_FREQUENCY).log())
        m.gamma_log.copy_(gamma.log())
        for name, value in (("B_re", b.real), ("B_im", b.imag), ("C_re", c.real), ("C_im", c.imag)):
            getattr(m, name).copy_(value)


_KINDS: dict[tuple[str, ...], Callable[[Any], SSMAdapter]] = {
    ("log_dt", "log_A_real", "A_imag", "C"): S4DAdapter,
    ("Lambda", "log_step", "B", "C"): S5Adapter,
    ("nu_log", "theta_log", "gamma_log", "B_re", "B_im", "C_re", "C_im"): LRUAdapter,
}


def adapt(model: object) -> SSMAdapter:
    """The first state space model in ``model``: see :func:`find_ssms`.

    >>> from tdi_lib.ssm import DiagonalSSM
    >>> ssm = DiagonalSSM(2, 4)
    >>> adapt(torch.nn.Sequential(torch.nn.Linear(2, 2), ssm)) is ssm
    True
    """
    return next(iter(candidates(model).values()))()


def find_ssms(model: object, *, name: str = "model") -> dict[str, SSMAdapter]:
    """The state space models in a module, by dotted name and in the order of its modules.

    Each is the module itself where it meets a protocol, else an adapter around it. The name is empty for ``model``
    itself.

    Args:
        model: a module, or any object that meets :class:`SisoSSM` or :class:`MimoSSM`.
        name: what the errors call it.

    Raises:
        TypeError: if there is none; it says what was looked for.
        ValueError: for a layer of a known kind in a variant that is not known.

    >>> from tdi_lib.ssm import SequenceModel
    >>> list(find_ssms(SequenceModel(1, 1, d_model=4, d_state=4, n_layers=2)))
    ['layers.0.ssm', 'layers.1.ssm']
    """
    return {path: make() for path, make in candidates(model, name).items()}


def candidates(model: object, name: str = "model") -> dict[str, Callable[[], SSMAdapter]]:
    """What :func:`find_ssms` finds, not yet adapted: a variant that is not known is an error when it is asked for."""
    if not isinstance(model, nn.Module):
        if isinstance(model, SSMAdapter):
            return {"": lambda: model}
        raise TypeError(f"{name} must be a module or have the methods of SisoSSM or MimoSSM, got {_named(model)}")
    found: dict[str, Callable[[], SSMAdapter]] = {}
    for path, module in model.named_modules():
        if any(not outer or path.startswith(outer + ".") for outer in found):
            continue  # within a layer that is known as a whole
        own = _own_tensors(module)
        kind = next((kind for names, kind in _KINDS.items() if own.issuperset(names)), None)
        if kind is not None or _meets(module):
            found[path] = functools.partial(_sound, module, path or name, kind)
    if not found:
        kinds = "; ".join(", ".join(names) for names in _KINDS)
        have = ", ".join(sorted({each.rsplit(".", 1)[-1] for each, _ in model.named_parameters()})) or "none"
        raise TypeError(
            f"{name} must be or hold a DiagonalSSM, a module with the methods of SisoSSM or MimoSSM, or one with the "
            f"parameters of a known layer ({kinds}), got {_named(model)} with the parameters {have}"
        )
    return found


def _named(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _own_tensors(module: nn.Module) -> set[str]:
    """Names of a module's own parameters and buffers (S4 keeps what is not trained as one), parametrized or not."""
    own = {name for kind in (module.named_parameters, module.named_buffers) for name, _ in kind(recurse=False)}
    return own | {name for name, _ in _parametrized(module)}


def _meets(module: nn.Module) -> bool:
    """Whether a module meets a protocol, be it in a precision in which its poles cannot be computed."""
    try:
        return isinstance(module, SSMAdapter)
    except RuntimeError:
        return True


def _parametrized(module: nn.Module) -> list[tuple[str, Any]]:
    return list(getattr(module, "parametrizations", nn.ModuleDict()).items())


def _sound(module: Any, path: str, kind: Callable[[Any], SSMAdapter] | None) -> SSMAdapter:
    """The layer, or an adapter around it, if its parameters can be read and written."""
    if names := [name for name, _ in _parametrized(module)]:
        raise ValueError(
            f"model must hold plain parameters in {path!r}, got {', '.join(names)} parametrized: "
            "torch.nn.utils.parametrize.remove_parametrizations makes them so"
        )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_meta:
            raise ValueError(f"model must hold values, got {path}.{name} on the meta device")
        if kind is None and tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"model must be of float32 or float64 in {path!r}, got {tensor.dtype} in {name}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"model must hold finite values, got NaN or infinite ones in {path}.{name}")
    return module if kind is None else kind(module)


def _wide(tensor: Tensor) -> Tensor:
    """On the CPU in double precision."""
    tensor = tensor.detach().cpu()
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _balanced(b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The same modes with rows of b (N, D) and columns of c (..., H, N) of equal norm, to be trained at one rate."""
    norms = torch.stack([b.norm(dim=1), c.reshape(-1, c.shape[-1]).norm(dim=0)])
    scale = torch.where((norms > 0).all(dim=0), (norms[1] / norms[0]).sqrt(), torch.ones(()))
    return b * scale[:, None], c / scale


# ---- poles and residues: kernel and frequency response in NumPy ----------------------------------


_LOADING = 1e-3  # diagonal loading of the input covariance: less gives sharper filters of larger, more fragile weights
_BLOCK = 16  # channels worked on at once, so that what a step leaves for the next one is still in the cache


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().cpu().numpy().astype(complex) for tensor in tensors]


def mean_power(ssm: SSMAdapter, omega: np.ndarray) -> np.ndarray:
    """Mean over channels, or over pairs of an input and an output, of the power response (F,)."""
    if isinstance(ssm, MimoSSM):
        poles, b, c = arrays(ssm.log_poles, ssm.input_gains, ssm.output_gains)
        return mixed_power(poles, b, c, omega)
    log_poles, residues = arrays(ssm.log_poles, ssm.residues)
    if omega.size > 1 and np.allclose(omega, dft_grid(omega.size), rtol=0, atol=1e-9):
        response = dft_response(log_poles, residues, n_frequencies=omega.size)
    else:
        response = frequency_response(log_poles, residues, omega=omega)
    return (np.abs(response) ** 2).mean(axis=0)


def dft_grid(n_frequencies: int) -> np.ndarray:
    """Frequencies 0 to pi of a DFT of the even length L = 2F - 2 (F,)."""
    return np.linspace(0, math.pi, n_frequencies)


def by_blocks(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Apply to ``_BLOCK`` channels at a time; arrays are (H, ...), keyword arguments go to every block."""

    @functools.wraps(function)
    def blocked(*arrays: np.ndarray, **shared: Any) -> np.ndarray:
        starts = range(0, len(arrays[0]), _BLOCK)
        return np.concatenate([function(*(a[i : i + _BLOCK] for a in arrays), **shared) for i in starts])

    return blocked


def _powers(log_poles: np.ndarray, count: int) -> np.ndarray:
    """Powers 0 .. K-1 of the poles (H, N, K), by doubling."""
    powers = np.ones((*log_poles.shape, count), dtype=complex)
    step, known = np.exp(log_poles)[:, :, None], 1
    while known < count:
        more = min(known, count - known)
        np.multiply(powers[:, :, :more], step, out=powers[:, :, known : known + more])
        step, known = step * step, known + more
    return powers


def power_tables(log_poles: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers 0, M, 2M, ... (H, N, Q) and 0 .. M-1 (H, N, M) with QM >= L: their products are the powers 0 .. L-1."""
    stride = math.isqrt(length - 1) + 1
    return _powers(stride * log_poles, -(-length // stride)), _powers(log_poles, stride)


@by_blocks
def frequency_response(log_poles: np.ndarray, residues: np.ndarray, *, omega: np.ndarray) -> np.ndarray:
    """Frequency responses (H, F) anywhere."""
    pairs = ((log_poles, residues), (log_poles.conj(), residues.conj()))
    return sum(-(c[:, :, None] / np.expm1(p[:, :, None] - 1j * omega)).sum(axis=1) for p, c in pairs)


@by_blocks
def impulse_response(log_poles: np.ndarray, residues: np.ndarray, *, length: int) -> np.ndarray:
    """Impulse responses (H, L) by a product of two tables of powers."""
    coarse, fine = power_tables(log_poles, length)
    coarse = coarse * (2 * residues)[:, :, None]
    kernel = (coarse.transpose(0, 2, 1) @ fine).real
    return kernel.reshape(len(kernel), -1)[:, :length]


def mixed_power(log_poles: np.ndarray, b: np.ndarray, c: np.ndarray, omega: np.ndarray) -> np.ndarray:
    r"""Mean of :math:`|H_{ij}|^2` over outputs i and inputs j (F,), for poles (N,), b (N, D) and c (H, N) or (2, H, N).

    With the conjugates listed as modes of their own, :math:`H = \sum_n c_n b_n^\top g_n(\omega)`, and
    :math:`\sum_{ij}|H_{ij}|^2 = g^\dagger \bigl[(C^\dagger C) \circ (B B^\dagger)^\top\bigr] g`: the H times D
    responses are never formed. Backwards in time every term is conjugated.
    """
    n_outputs, n_inputs = c.shape[-2], b.shape[1]
    terms = []
    for index, each in enumerate(c.reshape(-1, *c.shape[-2:])):
        for p, rows, columns in ((log_poles, b, each), (log_poles.conj(), b.conj(), each.conj())):
            g = -1 / np.expm1(p[:, None] - 1j * omega)  # (N F)
            terms.append((g.conj(), rows.conj(), columns.conj()) if index else (g, rows, columns))
    g, b, c = (np.concatenate([term[i] for term in terms], axis=axis) for i, axis in ((0, 0), (1, 0), (2, 1)))
    inner = (c.conj().T @ c) * (b.conj() @ b.T)
    return np.maximum((g.conj() * (inner @ g)).sum(axis=0).real, 0) / (n_outputs * n_inputs)


@by_blocks
def dft_response(log_poles: np.ndarray, residues: np.ndarray, *, n_frequencies: int) -> np.ndarray:
    r"""Frequency responses (H, F) on :func:`dft_grid`: just ``frequency_response``, but without (H, N, F) fractions.

    There :math:`z = e^{-i\omega}` has :math:`z^L = 1`, so :math:`1/(1 - az) = \sum_{l<L} a^l z^l / (1 - a^L)`: the
    response is the FFT of the kernel wrapped around L, and that is one matrix product of two tables of powers (see
    :meth:`~tdi_lib.ssm.DiagonalSSM.kernel`).
    """
    length = 2 * n_frequencies - 2
    coarse, fine = power_tables(log_poles, length)
    coarse = coarse * (-2 * residues / np.expm1(length * log_poles))[:, :, None]
    left = np.concatenate([coarse.real, -coarse.imag], axis=1)  # Re(xy) = Re x Re y - Im x Im y
    right = np.concatenate([fine.real, fine.imag], axis=1)
    kernel = (left.transpose(0, 2, 1) @ right).reshape(len(left), -1)[:, :length]
    return np.fft.rfft(kernel, axis=1)


def output_covariance(log_poles: np.ndarray, input_power: np.ndarray) -> np.ndarray:
    r"""Matrices R (H, 2N, 2N) with :math:`c^\top R c` the mean of :math:`|H|^2 S_u` over the DFT's grid.

    With :math:`g_n = 1/(1 - a_n z)`, :math:`z = e^{-i\omega}`, a response is
    :math:`\sum_n c_n g_n(\omega) + \bar c_n \overline{g_n(-\omega)}`, and c stands for (Re c, Im c). A product of two
    g's under the mean is an entry of a Nevanlinna-Pick matrix, so one number per pole suffices:

    .. math::
        \int \bar g_n g_m\, dS = \frac{\overline{f_n} + f_m}{1 - \bar a_n a_m}, \qquad
        f_n = \int \Bigl(g_n - \tfrac12\Bigr) dS .
    """
    n_frequencies = input_power.size
    length = 2 * n_frequencies - 2
    weights = input_power * length / (2 * n_frequencies)
    weights[[0, -1]] *= 2  # the two that have no mirror image
    lags = np.fft.irfft(weights)  # autocovariance, the mean of S_u cos(l omega)

    coarse, fine = power_tables(log_poles, length)
    table = np.zeros(coarse.shape[2] * fine.shape[2])
    table[:length] = lags
    sums = ((coarse @ table.reshape(coarse.shape[2], -1)) * fine).sum(axis=2)  # sum over l of lag times power
    f = -sums / np.expm1(length * log_poles) - lags[0] / 2  # (H N)

    a, f_bar = np.exp(log_poles)[:, None, :], f.conj()[:, :, None]
    a_bar = a.conj().transpose(0, 2, 1)
    same = (f_bar + f[:, None, :]) / (1 - a_bar * a)  # (H N N)
    mirrored = (f_bar + f.conj()[:, None, :]) / (1 - a_bar * a.conj())
    return 2 * np.block(
        [
            [(same + mirrored).real, (mirrored - same).imag],
            [(same + mirrored).imag, (same - mirrored).real],
        ]
    )


@by_blocks
def focused_weights(
    log_poles: np.ndarray, centers: np.ndarray, phases: np.ndarray, *, input_power: np.ndarray
) -> np.ndarray:
    r"""Residues c (H, N) that listen at a channel's center and to nothing louder.

    Among all weights on the given poles, take those with the least output power :math:`c^\top R c` on the task's input
    (:func:`output_covariance`) for a unit response of a given phase at the center. That is Capon's minimum-variance
    filter, :math:`c \propto R^{-1} \nabla_c \mathrm{Re}(e^{-i\theta} H(\omega_c))`, scaled to unit output power.
    """
    covariance = output_covariance(log_poles, input_power)
    turn = np.exp(-1j * phases)[:, None]
    direct = -turn / np.expm1(log_poles - 1j * centers[:, None])  # (H N)
    mirrored = -turn / np.expm1(log_poles.conj() - 1j * centers[:, None])
    wanted = np.concatenate([(direct + mirrored).real, (mirrored - direct).imag], axis=1)  # (H 2N)
    size = covariance.shape[-1]
    loading = _LOADING * np.trace(covariance, axis1=1, axis2=2) / size
    loaded = covariance + loading[:, None, None] * np.eye(size)
    c = np.linalg.solve(loaded, wanted[:, :, None])  # (H 2N 1)
    c = c / np.sqrt(c.transpose(0, 2, 1) @ covariance @ c)
    real, imag = np.split(c[:, :, 0], 2, axis=1)
    return real + 1j * imag
