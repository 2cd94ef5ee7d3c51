r"""The diagonal state space model: poles in, kernel, frequency response and recurrence out; and deep models of it.

One channel with :math:`N` conjugate pairs of modes, step :math:`\Delta`, zero-order hold:

.. math::

    a_n = e^{\Delta A_n}, \qquad b_n = B_n (a_n - 1)/A_n, \qquad
    k_l = 2\,\mathrm{Re} \sum_n C_n b_n a_n^l .

The bilinear (Tustin) and the forward Euler rule change :math:`a_n` only: see :class:`DiagonalSSM`. The model follows
Gu et al., arXiv 2206.11893. :class:`S4DLayer` and :class:`SequenceModel` are built around it.

Shapes: ``B`` batch, ``H = d_model`` channels, ``N = d_state / 2`` pairs, ``L`` time steps, ``D`` input channels,
``F`` frequencies. Angular frequencies ``omega`` are in rad/sample.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn

from tdi_lib.samples import one_of, positive_int, real_number, real_tensor

__all__ = [
    "INITIALIZATIONS",
    "DiagonalSSM",
    "S4DLayer",
    "SequenceModel",
    "TimeStatistics",
    "causal_convolution",
    "poles_dfout",
    "poles_inv",
    "poles_legs",
    "poles_lin",
    "poles_random",
    "poles_real",
    "poles_scaled",
    "seeded_ssm",
]

# ---- poles, kernel, recurrence -------------------------------------------------------------------


def poles_lin(n_pairs: int) -> np.ndarray:
    r"""S4D-Lin, :math:`A_n = -\tfrac12 + i\pi n` (arXiv 2206.11893), complex, shape (N,).

    >>> poles_lin(3)
    array([-0.5+0.j        , -0.5+3.14159265j, -0.5+6.28318531j])
    """
    return poles_scaled(n_pairs, alpha=1.0)


def poles_scaled(n_pairs: int, alpha: float = 3.0) -> np.ndarray:
    r"""S4D-Lin with frequencies stretched, :math:`A_n = -\tfrac12 + i\alpha\pi n` (arXiv 2410.02035), shape (N,)."""
    return -0.5 + 1j * alpha * np.pi * np.arange(n_pairs)


def poles_inv(n_pairs: int) -> np.ndarray:
    r"""S4D-Inv (arXiv 2206.11893), shape (N,).

    .. math:: A_n = -\tfrac12 + i\frac{M}{\pi}\Bigl(\frac{M}{2n+1} - 1\Bigr), \qquad M = 2N
    """
    m = 2 * n_pairs
    return -0.5 + 1j * m / np.pi * (m / (2 * np.arange(n_pairs) + 1) - 1)


def poles_random(d_model: int, n_pairs: int, *, generator: np.random.Generator) -> np.ndarray:
    r"""S4D-Lin's poles without its order: frequencies drawn uniformly from the same range, anew per channel.

    :math:`A_{hn} = -\tfrac12 + i\pi\nu_{hn}` with :math:`\nu_{hn} \sim U[0, N)`, shape (H, N). Hand it to
    :class:`DiagonalSSM` as ``init=lambda n_pairs: poles_random(d_model, n_pairs, generator=generator)``.

    >>> poles_random(4, 16, generator=np.random.default_rng(0)).shape
    (4, 16)
    """
    return -0.5 + 1j * np.pi * generator.uniform(0, n_pairs, (d_model, n_pairs))


def poles_real(n_pairs: int) -> np.ndarray:
    r"""S4D-Real, :math:`A_n = -(n+1)` (arXiv 2206.11893), shape (N,)."""
    return -(np.arange(n_pairs) + 1.0) + 0j


def poles_legs(n_pairs: int) -> np.ndarray:
    r"""S4D-LegS: the eigenvalues of the normal part of HiPPO-LegS (arXiv 2206.11893), shape (N,).

    :math:`S = A + PP^\top` with :math:`P_n = \sqrt{n + 1/2}` is :math:`-\tfrac12 I` plus a skew matrix, so the real
    parts are exactly :math:`-\tfrac12` and the imaginary parts come from a Hermitian problem.

    >>> poles_legs(1)  # M = 2: S = [[-1/2, r], [-r, -1/2]] with r = sqrt(3) / 2
    array([-0.5+0.8660254j])
    """
    p = np.sqrt(np.arange(2 * n_pairs) + 0.5)
    skew = np.triu(np.outer(p, p), 1)
    skew = skew - skew.T
    imag = np.linalg.eigvalsh(-1j * skew)
    return -0.5 + 1j * imag[imag > 0]


def poles_dfout(d_model: int, n_pairs: int, xi: np.ndarray) -> np.ndarray:
    r"""S4D-DFouT log-poles per sample, :math:`-\xi_h/2 + i(2\pi n/M + \varphi_h)` (arXiv 2508.20441), shape (H, N).

    The offsets :math:`\varphi_h = 2\pi h/(MH)`, :math:`h = 0..H-1`, interleave the channels' combs. Use with a unit
    step: the frequency of a mode is then set in discrete time and does not move with its decay.
    """
    m = 2 * n_pairs
    phase = 2 * np.pi * (np.arange(n_pairs)[None, :] + np.arange(d_model)[:, None] / d_model) / m
    return -xi[:, None] / 2 + 1j * phase


INITIALIZATIONS: dict[str, Callable[[int], np.ndarray] | None] = {
    "lin": poles_lin,
    "inv": poles_inv,
    "legs": poles_legs,
    "real": poles_real,
    "dfout": None,  # placed in discrete time, channel by channel
    "scaled": poles_scaled,
}
"""Named initializations: each gives the continuous-time poles of one channel from the number of pairs."""


# A rule is the map from Delta A to log a, and its inverse; b = B (a - 1)/A under all three.
_RULES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "zoh": (lambda z: z, lambda log_a: log_a),
    "bilinear": (lambda z: 2 * torch.atanh(z / 2), lambda log_a: 2 * torch.tanh(log_a / 2)),
    "euler": (torch.log1p, torch.expm1),
}


def causal_convolution(signal: Float[Tensor, "... L"], kernel: Float[Tensor, "... L"]) -> Float[Tensor, "... L"]:
    r"""Causal convolution :math:`y_t = \sum_{l \le t} k_l u_{t-l}` along the last axis by zero-padded FFT, O(L log L).

    Leading axes broadcast; a last axis that differs raises ValueError.

    >>> causal_convolution(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, 10.0, 100.0]))
    tensor([  1.,  10., 102.])
    """
    length = signal.shape[-1]
    if kernel.shape[-1] != length:
        raise ValueError(f"kernel must be as long as signal ({length}), got shape {tuple(kernel.shape)}")
    n = 2 * length  # no wrap-around
    product = torch.fft.rfft(signal, n=n) * torch.fft.rfft(kernel, n=n)
    return torch.fft.irfft(product, n=n)[..., :length]


class DiagonalSSM(nn.Module):
    r"""H independent single-input single-output diagonal SSMs (S4D).

    Args:
        d_model: number of channels H.
        d_state: full state size of a channel; ``d_state / 2`` conjugate pairs are stored. Even.
        init: ``lin``, ``inv``, ``legs``, ``real``, ``dfout``, ``scaled``, or a callable ``init(n_pairs)`` that returns
            continuous-time poles (N,) or (H, N), complex with negative real parts.
        dt_min, dt_max: the step is log-uniform on this range, one per channel. (``dfout`` uses a unit step, draws
            its decays :math:`\xi` on [1e-3, 1e-1] instead and places the same discrete poles under every rule.)
        discretization: how a step is taken. ``zoh`` (input held constant, then exact), ``bilinear`` (Tustin: the
            trapezoidal rule, as in S4, arXiv 2111.00396) or ``euler`` (forward Euler):

            .. math:: a = e^{\Delta A}, \qquad a = \frac{1 + \Delta A/2}{1 - \Delta A/2}, \qquad a = 1 + \Delta A,

            each with :math:`b = B\,(a - 1)/A`.
        generator: source of randomness for ``dt`` and ``C``; the global one if omitted.

    Raises:
        TypeError, ValueError: naming the argument, for odd or non-positive sizes, an empty step range, an unknown
            ``init`` or ``discretization``, poles of the wrong shape or outside the left half plane, or Euler steps
            that are too long: :math:`|a| < 1` only for :math:`\Delta < 2|\mathrm{Re}\,A|/|A|^2`.

    Every entry of ``C`` is standard complex normal and ``B`` is one (arXiv 2206.11893).
    The real part is held negative by its logarithm, so under ``zoh`` and ``bilinear`` the filter stays stable under
    any training step. Under ``euler`` an unstable start is refused: the kernel would grow and have no frequency
    response, though the closed form would still give numbers. Training may lead out of the unit circle later.

    >>> ssm = DiagonalSSM(2, 8, generator=torch.Generator().manual_seed(0))
    >>> ssm.kernel(100).shape, ssm.frequency_response(torch.linspace(0, torch.pi, 5)).shape
    (torch.Size([2, 100]), torch.Size([2, 5]))
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        init: str | Callable[[int], np.ndarray] = "lin",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        discretization: str = "zoh",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.d_model = positive_int("d_model", d_model)
        self.d_state = positive_int("d_state", d_state, minimum=2)
        if d_state % 2:
            raise ValueError(f"d_state must be even (conjugate pairs are stored), got {d_state}")
        n_pairs = self.d_state // 2
        low = real_number("dt_min", dt_min, low=1e-12)
        high = real_number("dt_max", dt_max, low=1e-12)
        if low > high:
            raise ValueError(f"dt_min must not exceed dt_max, got {dt_min} > {dt_max}")

        self.discretization = one_of("discretization", discretization, tuple(_RULES))

        uniform = torch.rand(self.d_model, generator=generator)
        log_dt = uniform * (math.log(high) - math.log(low)) + math.log(low)  # (H)
        if init == "dfout":
            xi = torch.exp(uniform * math.log(100.0) + math.log(1e-3)).double().numpy()
            log_poles = torch.as_tensor(poles_dfout(self.d_model, n_pairs, xi))
            poles, log_dt = _RULES[discretization][1](log_poles).numpy(), torch.zeros(self.d_model)
        else:
            poles = self._poles(init, n_pairs)
        poles = np.broadcast_to(poles, (self.d_model, n_pairs))
        c = torch.randn(self.d_model, n_pairs, 2, generator=generator) * math.sqrt(0.5)

        as_tensor = lambda array: torch.tensor(array, dtype=torch.get_default_dtype())  # noqa: E731
        self.log_dt = nn.Parameter(log_dt)
        self.log_A_real = nn.Parameter(as_tensor(np.log(-poles.real)))  # (H N)
        self.A_imag = nn.Parameter(as_tensor(poles.imag))  # (H N)
        self.C_real_imag = nn.Parameter(c)  # (H N 2)
        # Real view, not complex: Module.to(float64) would silently drop the imaginary part of a complex buffer.
        one = torch.tensor([1.0, 0.0]).expand(self.d_model, n_pairs, 2)
        self.register_buffer("B_real_imag", one.clone())
        self.B_real_imag: Tensor
        self._refuse_unstable()

    def _poles(self, init: Any, n_pairs: int) -> np.ndarray:
        if not callable(init):
            init = INITIALIZATIONS[one_of("init", init, tuple(INITIALIZATIONS))]
        poles = np.asarray(init(n_pairs))
        if poles.shape not in {(n_pairs,), (self.d_model, n_pairs)}:
            raise ValueError(
                f"init must give poles of shape ({n_pairs},) or ({self.d_model}, {n_pairs}), got {poles.shape}"
            )
        if not (np.isfinite(poles).all() and (poles.real < 0).all()):
            raise ValueError("init must give finite poles with negative real parts (a stable filter)")
        return poles

    @torch.no_grad()
    def _refuse_unstable(self) -> None:
        growth = self.log_poles.real
        bad = ~(growth.isfinite() & (growth < 0))  # log a = -inf: a = 0, which no log-pole can hold
        if bad.any():
            first = tuple(bad.nonzero()[0])
            raise ValueError(
                f"discretization must keep all poles in 0 < |a| < 1, but {self.discretization!r} puts "
                f"{int(bad.sum())} of {bad.numel()} outside, first A = {self.A[first].item():.4g} at "
                f"dt = {self.dt[first[0]].item():.4g} with |a| = {growth[first].exp().item():.4g}: keep dt_max below "
                f"2|Re A|/|A|^2, here {(-2 * self.A.real / self.A.abs() ** 2).min().item():.4g}, or use 'zoh'"
            )

    @property
    def A(self) -> Complex[Tensor, "H N"]:
        """Continuous-time poles, one of each conjugate pair."""
        return torch.complex(-self.log_A_real.exp(), self.A_imag)

    @property
    def B(self) -> Complex[Tensor, "H N"]:
        """Input weights (ones unless a caller sets them)."""
        return torch.view_as_complex(self.B_real_imag)

    @property
    def C(self) -> Complex[Tensor, "H N"]:
        """Output weights."""
        return torch.view_as_complex(self.C_real_imag)

    @property
    def dt(self) -> Float[Tensor, " H"]:
        """Step of each channel."""
        return self.log_dt.exp()

    @property
    def log_poles(self) -> Complex[Tensor, "H N"]:
        r"""Log of the discrete poles, :math:`\log a`: decay per sample and frequency in rad/sample.

        Under ``zoh`` it is :math:`\Delta A`, whose frequency is not wrapped and may lie beyond :math:`\pi`.
        """
        return _RULES[self.discretization][0](self.dt[:, None] * self.A)

    def discretize(self) -> tuple[Complex[Tensor, "H N"], Complex[Tensor, "H N"]]:
        r"""Log-poles :math:`\log a` and input weights :math:`b = B\,(a - 1)/A`, both (H, N)."""
        log_a = self.log_poles
        # expm1, not exp - 1: for small steps the difference would lose half of the digits
        return log_a, self.B * torch.expm1(log_a) / self.A

    @property
    def residues(self) -> Complex[Tensor, "H N"]:
        r"""Residues :math:`c = C b`: the kernel is :math:`2\,\mathrm{Re}\sum_n c_n a_n^l`."""
        return self.C * self.discretize()[1]

    def kernel(self, length: int) -> Float[Tensor, "H L"]:
        r"""Impulse response :math:`k_0 .. k_{L-1}` of every channel.

        With :math:`l = qM + m` a power splits, :math:`a^l = a^{qM} a^m`: two tables of about :math:`\sqrt L` powers
        per mode and one real batched matrix product of inner size 2N replace the (H, N, L) Vandermonde matrix.
        Memory O(H N sqrt(L) + H L).

        >>> ssm = DiagonalSSM(1, 2).double()
        >>> log_a, b = ssm.discretize()
        >>> direct = 2 * (ssm.C * b * (7 * log_a).exp()).real.item()
        >>> abs(ssm.kernel(10)[0, 7].item() / direct - 1) < 1e-12
        True
        """
        length = positive_int("length", length)
        c = 2 * self.C * self.discretize()[1]
        inner = math.isqrt(length - 1) + 1  # M
        outer = -(-length // inner)  # Q, with Q M >= L
        fine = self._powers(1, inner)  # (H 2N M)
        coarse_re, coarse_im = self._powers(inner, outer).chunk(2, dim=1)  # (H N Q) each
        c_re, c_im = c.real[:, :, None], c.imag[:, :, None]
        # Re(x y) = Re x Re y - Im x Im y, as one real product over 2N
        coarse = torch.cat(
            [c_re * coarse_re - c_im * coarse_im, -c_re * coarse_im - c_im * coarse_re], dim=1
        )  # (H 2N Q)
        return torch.einsum("hnq,hnm->hqm", coarse, fine).flatten(1)[:, :length]  # (H L)

    def _powers(self, stride: int, count: int) -> Float[Tensor, "H two_N K"]:
        """Real, then imaginary parts of the poles' powers 0, stride, 2 stride, ...

        In float32 the phase of a late power (thousands of radians) would keep few digits after the point, so it is
        formed and reduced in float64 where the device has it; cosines and exponentials stay in the model's dtype.
        """
        dtype = self.log_dt.dtype
        wide = dtype if self.log_dt.device.type == "mps" else torch.float64
        steps = stride * torch.arange(count, dtype=wide, device=self.log_dt.device)
        dt = self.log_dt.to(wide).exp()[:, None]
        log_a = _RULES[self.discretization][0](torch.complex(-dt * self.log_A_real.to(wide).exp(), dt * self.A_imag))
        phase = torch.remainder(log_a.imag[:, :, None] * steps, 2 * math.pi).to(dtype)
        decay = log_a.real.to(dtype)
        magnitude = torch.exp(decay[:, :, None] * steps.to(dtype))  # (H N K)
        return torch.cat([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], dim=1)

    def frequency_response(self, omega: Tensor, length: int | None = None) -> Complex[Tensor, "H F"]:
        r"""Frequency response :math:`H(\omega)` at ``omega`` (F,) in rad/sample, closed form.

        .. math::
            H(\omega) = \sum_n \frac{c_n}{1 - a_n e^{-i\omega}} + \frac{\bar c_n}{1 - \bar a_n e^{-i\omega}}, \qquad
            c_n = C_n b_n

        With ``length=L`` each term is multiplied by :math:`1 - (a e^{-i\omega})^L`: exactly the response of the
        kernel cut at L, so on the DFT grid it *is* the FFT of ``kernel(L)``.
        """
        if not isinstance(omega, Tensor) or omega.ndim != 1 or omega.is_complex():
            got = f"{tuple(omega.shape)} {omega.dtype}" if isinstance(omega, Tensor) else type(omega).__name__
            raise TypeError(f"omega must be a real tensor of shape (F,) in rad/sample, got {got}")
        log_a, b = self.discretize()
        c = self.C * b
        shift = 1j * omega.to(log_a.device, self.log_dt.dtype)  # (F)
        total = torch.zeros((), dtype=c.dtype, device=c.device)
        for log_pole, weight in ((log_a, c), (log_a.conj(), c.conj())):
            z = log_pole[:, :, None] - shift  # (H N F), log of a e^{-i omega}
            term = -weight[:, :, None] / torch.expm1(z)
            if length is not None:
                term = term * -torch.expm1(positive_int("length", length) * z)
            total = total + term.sum(dim=1)
        return total

    def initial_state(self, batch: int) -> Complex[Tensor, "B H N"]:
        """The zero state for :meth:`step`."""
        batch = positive_int("batch", batch)
        return torch.zeros(batch, *self.C.shape, dtype=self.C.dtype, device=self.C.device)

    def step(
        self, state: Complex[Tensor, "B H N"], input: Float[Tensor, "B H"]
    ) -> tuple[Complex[Tensor, "B H N"], Float[Tensor, "B H"]]:
        r"""One step of the recurrence :math:`x_t = a x_{t-1} + b u_t,\ y_t = 2\,\mathrm{Re}\, C x_t`; returns
        (state, output).

        Run over a sequence it agrees with the convolution by :meth:`kernel`.
        """
        real_tensor("input", input, "B H", {"H": self.d_model})
        if state.shape != (len(input), *self.C.shape):
            expected = (len(input), *self.C.shape)
            raise ValueError(f"state must have shape {expected} (see initial_state), got {tuple(state.shape)}")
        log_a, b = self.discretize()
        state = log_a.exp() * state + b * input[:, :, None]  # (B H N)
        return state, 2 * (self.C * state).sum(-1).real

    def forward(self, u: Float[Tensor, "B H L"]) -> Float[Tensor, "B H L"]:
        """Filter every channel of ``u`` causally by its kernel."""
        real_tensor("u", u, "B H L", {"H": self.d_model})
        return causal_convolution(u, self.kernel(u.shape[-1]))

    @torch.no_grad()
    def set_log_poles_(self, log_poles: Complex[Tensor, "H N"], residues: Complex[Tensor, "H N"]) -> None:
        r"""Place discrete log-poles :math:`\log a` and residues :math:`c = C b` in place; the steps ``dt`` and B
        are kept.

        >>> ssm = DiagonalSSM(1, 2).double()
        >>> ssm.set_log_poles_(torch.tensor([[-0.1 + 1j]]), torch.tensor([[1.0 + 0j]]))
        >>> bool(torch.isclose(ssm.kernel(2)[0, 1], 2 * torch.tensor([-0.1 + 1j]).exp().real.double()))
        True
        """
        log_poles = log_poles.to(self.log_dt.device)
        a = _RULES[self.discretization][1](log_poles) / self.dt[:, None]
        c = residues.to(self.log_dt.device) / (self.B * torch.expm1(log_poles) / a)
        self.log_A_real.copy_((-a.real).log())
        self.A_imag.copy_(a.imag)
        self.C_real_imag.copy_(torch.view_as_real(c))

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, d_state={self.d_state}"


def seeded_ssm(d_model: int, d_state: int = 64, *, seed: int = 0, **options: Any) -> DiagonalSSM:
    """A :class:`DiagonalSSM` for theory: drawn from a seed, in float64, nothing to train.

    >>> seeded_ssm(1, 4).kernel(3).dtype
    torch.float64
    """
    seed = positive_int("seed", seed, minimum=0)
    ssm = DiagonalSSM(d_model, d_state, generator=torch.Generator().manual_seed(seed), **options)
    return ssm.double().requires_grad_(False)


# ---- deep models ---------------------------------------------------------------------------------


_POOLINGS = ("mean", "last", "none", "statistics")
_QUIET = 1e-6  # least power, relative to a filter's mean power, that the logarithm can tell from none


class TimeStatistics(nn.Module):
    r"""What each channel does over time: share of time above thresholds, and moments. (B L H) to (B F).

    With z a channel divided by its root mean square on the training inputs and :math:`\theta_q` its thresholds:

    .. math::
        \overline{\sigma\bigl((z - \theta_q) / w\bigr)}, \qquad
        \log(\overline{z^2} + 10^{-6}), \qquad \overline{z}, \qquad \overline{\tanh z} .

    The first is the share of time above a threshold (random convolutions use it: arXiv 2012.08791) with the step made
    a sigmoid :math:`\sigma` of width w, so that gradients pass. Every channel has thresholds at quantiles of its own:
    multiples of the golden ratio modulo one, which are evenly spread over the channels. The second tells a channel's
    power in a short sequence of random phase, the others its slow and its lopsided parts.

    Scales, thresholds, and the mean and deviation by which every statistic is standardized are buffers: they are saved
    with the weights and never trained. :func:`~tdi_lib.readout.ridge_readout_` takes them from the training inputs.
    Until then the thresholds are those of a normal law of unit power.

    Args:
        d_model: channels H.
        n_thresholds: thresholds Q of a channel.
        moments: whether the last three statistics are there.
        width: of the sigmoid, relative to the channel's root mean square; less is nearer to a share, with gradients
            from fewer steps.

    F is ``d_model * (n_thresholds + 3)``, all channels of one statistic after the other.

    >>> TimeStatistics(8)(torch.zeros(2, 50, 8)).shape
    torch.Size([2, 48])
    """

    thresholds: Tensor
    scale: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, d_model: int, *, n_thresholds: int = 3, moments: bool = True, width: float = 0.03) -> None:
        super().__init__()
        self.d_model = positive_int("d_model", d_model)
        n_thresholds = positive_int("n_thresholds", n_thresholds, minimum=0 if moments else 1)
        self.moments = moments
        self.width = real_number("width", width, low=1e-6)
        self.n_features = d_model * (n_thresholds + 3 * moments)
        index = torch.arange(1, d_model * n_thresholds + 1, dtype=torch.float64).view(d_model, n_thresholds)
        self._levels = torch.remainder(index * (math.sqrt(5) - 1) / 2, 1.0)  # (H Q)
        self.register_buffer("thresholds", torch.special.ndtri(self._levels).float())
        self.register_buffer("scale", torch.ones(d_model))
        self.register_buffer("mean", torch.zeros(self.n_features))
        self.register_buffer("deviation", torch.ones(self.n_features))

    def forward(self, h: Float[Tensor, "B L H"], mask: Bool[Tensor, "B L"] | None = None) -> Float[Tensor, "B F"]:
        """Statistics over time; where ``mask`` is False a step does not count."""
        # in widths of the sigmoid: every pass over (B L H) costs as much as the filters
        z = h / (self.width * self.scale)
        if mask is None:
            average = lambda v: v.mean(dim=1)  # noqa: E731
        else:
            weights = (mask / mask.sum(dim=1, keepdim=True)).to(z.dtype)[:, :, None]  # (B L 1)
            average = lambda v: (v * weights).sum(dim=1)  # noqa: E731
        parts = [average((z - threshold / self.width).sigmoid_()) for threshold in self.thresholds.T]
        if self.moments:
            power, center = average(z.square()) * self.width**2, average(z) * self.width
            parts += [(power + _QUIET).log(), center, average((z * self.width).tanh_())]
        return (torch.cat(parts, dim=1) - self.mean) / self.deviation

    @torch.no_grad()
    def fit_(self, outputs: Float[Tensor, "T H"]) -> None:
        """Take scales and thresholds from values of the channels (T, H), and standardize no longer."""
        scale = outputs.double().square().mean(dim=0).sqrt()
        scale = torch.where(scale > 0, scale, 1.0)
        place = (self._levels * len(outputs)).long()  # below T, for levels are below 1
        ordered = outputs.sort(dim=0).values
        self.scale.copy_(scale)
        self.thresholds.copy_(ordered.gather(0, place.T).T / scale[:, None])
        self.mean.zero_()
        self.deviation.fill_(1.0)


def random_parts(n_filters: int, d_input: int, generator: torch.Generator | None = None) -> Bool[Tensor, "H D"]:
    """Which input channels each filter hears: a random part of them, its size log-uniform (arXiv 1910.13051).

    >>> random_parts(4, 1).all().item()
    True
    """
    size = (d_input + 1) ** torch.rand(n_filters, 1, generator=generator)
    return torch.rand(n_filters, d_input, generator=generator).argsort(dim=1) < size.floor()


class S4DLayer(nn.Module):
    """Filter each channel, then mix the channels: SSM, feed-through, GELU, gated linear unit (arXiv 2206.11893).

    Args:
        d_model, d_state, init, dt_min, dt_max, generator: as for :class:`DiagonalSSM`.
        dropout: probability of zeroing an activation before the mixing.
        feedthrough: add ``D * u``, one learned weight per channel, to the filter's output.
        mixing: False leaves the filters alone: no GELU, no linear unit.

    >>> layer = S4DLayer(8, 16)
    >>> layer(torch.zeros(2, 50, 8)).shape  # (B L H) -> (B L H)
    torch.Size([2, 50, 8])
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        *,
        dropout: float = 0.0,
        feedthrough: bool = True,
        mixing: bool = True,
        init: str | Callable[[int], np.ndarray] = "lin",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.ssm = DiagonalSSM(d_model, d_state, init=init, dt_min=dt_min, dt_max=dt_max, generator=generator)
        self.D = nn.Parameter(torch.randn(self.ssm.d_model, generator=generator)) if feedthrough else None
        self.dropout = nn.Dropout(real_number("dropout", dropout, low=0.0, high=1.0))
        self.mix = _linear(self.ssm.d_model, 2 * self.ssm.d_model, generator) if mixing else None

    def forward(self, x: Float[Tensor, "B L H"]) -> Float[Tensor, "B L H"]:
        """Causal: the output at t depends on the input up to t."""
        real_tensor("x", x, "B L H", {"H": self.ssm.d_model})
        y = self.ssm(x.mT).mT.contiguous()  # (B L H); element-wise kernels are slow on transposed memory
        if self.D is not None:
            y = y + self.D * x
        if self.mix is None:
            return y
        return nn.functional.glu(self.mix(self.dropout(nn.functional.gelu(y))), dim=-1)


class SequenceModel(nn.Module):
    """A sequence in, a vector (or a sequence) out: encoder, prenorm residual S4D blocks, pooling, decoder.

    The first block reads the encoder's output as it is: a layer norm over channels that all carry one scalar input
    would divide out its amplitude, and the first layer would no longer be a filter of the *data*. The later blocks
    are prenormed.

    Args:
        d_input: channels D of the input.
        d_output: width of the output (classes, or regression targets).
        d_model, d_state, n_layers: size of the stack.
        dropout: as in :class:`S4DLayer`.
        pooling: ``mean`` over time or ``last`` step, giving (B, d_output); ``none`` gives (B, L, d_output). With
            ``statistics`` the first block is the bank of filters alone, the later ones are added to its outputs, and
            the decoder reads the :class:`TimeStatistics` of the sum: a model of one layer is then a linear read-out of
            what each filter does over time. Every filter begins by hearing a random part of the input channels. See
            :func:`~tdi_lib.readout.ridge_readout_`.
        zero_branches: all blocks after the first begin with nothing to add, so that the model starts as its own first
            layer. The half of each linear unit that is gated begins at zero; its gradient does not, and one step later
            the block learns as any other.
        input_skip: whether the raw input may bypass the first filter, through its feed-through and the first residual;
            with ``statistics`` it never does.
        init, dt_min, dt_max: as for :class:`DiagonalSSM`, in every layer.
        generator: source of randomness of all initial values; the global one if omitted.

    Raises:
        TypeError, ValueError: naming the argument.

    >>> model = SequenceModel(1, 10, d_model=8, d_state=16, n_layers=2)
    >>> model(torch.zeros(4, 784, 1)).shape
    torch.Size([4, 10])
    """

    def __init__(
        self,
        d_input: int,
        d_output: int,
        *,
        d_model: int = 64,
        d_state: int = 64,
        n_layers: int = 4,
        dropout: float = 0.0,
        pooling: str = "mean",
        zero_branches: bool = False,
        input_skip: bool = True,
        init: str | Callable[[int], np.ndarray] = "lin",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.d_input = positive_int("d_input", d_input)
        d_output = positive_int("d_output", d_output)
        d_model = positive_int("d_model", d_model)
        n_layers = positive_int("n_layers", n_layers)
        self.pooling = one_of("pooling", pooling, _POOLINGS)
        bank = self.pooling == "statistics"
        self.input_skip = input_skip and not bank
        self.encoder = _linear(self.d_input, d_model, generator)
        if bank:
            with torch.no_grad():
                self.encoder.weight.mul_(random_parts(d_model, self.d_input, generator))
                self.encoder.bias.zero_()
        self.layers = nn.ModuleList(
            S4DLayer(
                d_model,
                d_state,
                dropout=dropout,
                feedthrough=self.input_skip or index > 0,
                mixing=not bank or index > 0,
                init=init,
                dt_min=dt_min,
                dt_max=dt_max,
                generator=generator,
            )
            for index in range(n_layers)
        )
        if zero_branches:
            with torch.no_grad():
                for name, parameter in self.layers[1:].named_parameters():
                    if ".mix." in name:
                        parameter[:d_model] = 0.0
        # one before each later block and one at the end, but none where loudness is what is measured
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(n_layers - bank))
        self.dropout = nn.Dropout(dropout)
        self.statistics = TimeStatistics(d_model) if bank else None
        self.decoder = _linear(self.statistics.n_features if self.statistics else d_model, d_output, generator)

    @property
    def ssms(self) -> list[DiagonalSSM]:
        """The state space models of the layers, first to last."""
        return [layer.ssm for layer in self.layers]  # type: ignore[misc]

    def forward(
        self, x: Float[Tensor, "B L D"], lengths: Tensor | None = None
    ) -> Float[Tensor, "B C"] | Float[Tensor, "B L C"]:
        """Predict from ``x`` (B, L, D).

        Args:
            x: sequences, padded at their ends when ``lengths`` is given (the padding may hold anything, NaN included).
            lengths: (B,) integers in [1, L]; the padding then has no influence on the output.
        """
        real_tensor("x", x, "B L D", {"D": self.d_input})
        if lengths is not None:
            lengths = torch.as_tensor(lengths, device=x.device)
            if lengths.shape != x.shape[:1] or lengths.is_floating_point() or lengths.is_complex():
                raise ValueError(
                    f"lengths must be integers of shape ({len(x)},), got {tuple(lengths.shape)} {lengths.dtype}"
                )
            if lengths.min() < 1 or lengths.max() > x.shape[1]:
                raise ValueError(f"lengths must lie in [1, {x.shape[1]}], got [{lengths.min()}, {lengths.max()}]")
        return self.forward_unchecked(x, lengths)

    def forward_unchecked(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """:meth:`forward` without a look at values, as :func:`torch.func.vmap` needs it."""
        mask = None if lengths is None else torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # (B L)
        if mask is not None:
            x = x.masked_fill(~mask[:, :, None], 0.0)
        h = self.encoder(x)  # (B L H)
        for index, layer in enumerate(self.layers):
            y = self.dropout(layer(h if index == 0 else self.norms[index - 1](h)))
            h = h + y if index > 0 or self.input_skip else y
        if self.statistics is not None:
            return self.decoder(self.statistics(h, mask))
        h = self.norms[-1](h)
        if self.pooling == "mean":
            h = h.mean(dim=1) if mask is None else (h * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)  # (B H)
        elif self.pooling == "last":
            last = -1 if lengths is None else lengths - 1
            h = h[torch.arange(len(h), device=h.device), last]  # (B H)
        return self.decoder(h)

    def parameter_groups(self, lr: float, ssm_lr: float = 1e-3, weight_decay: float = 0.01) -> list[dict[str, Any]]:
        """Groups for any torch optimizer, as S4 trains: poles and steps slowly and never decayed.

        Three groups: weight matrices (``lr``, decayed), biases, norms, C and D (``lr``, not decayed), and the SSMs'
        A and dt (``min(lr, ssm_lr)``, not decayed).

        >>> model = SequenceModel(1, 2, d_model=8, d_state=4, n_layers=1)
        >>> [(g["lr"], g["weight_decay"]) for g in model.parameter_groups(1e-2)]
        [(0.01, 0.01), (0.01, 0.0), (0.001, 0.0)]
        """
        lr = real_number("lr", lr, low=0.0)
        ssm_lr = real_number("ssm_lr", ssm_lr, low=0.0)
        decay = real_number("weight_decay", weight_decay, low=0.0)
        state, plain, matrices = [], [], []
        for name, parameter in self.named_parameters():
            kind = name.rsplit(".", 1)[-1]
            if kind in {"log_dt", "log_A_real", "A_imag"}:
                state.append(parameter)
            elif kind in {"C_real_imag", "D"} or parameter.ndim < 2:
                plain.append(parameter)
            else:
                matrices.append(parameter)
        return [
            {"params": matrices, "lr": lr, "weight_decay": decay},
            {"params": plain, "lr": lr, "weight_decay": 0.0},
            {"params": state, "lr": min(lr, ssm_lr), "weight_decay": 0.0},
        ]


def _linear(d_in: int, d_out: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear map with torch's default law (uniform, +-1/sqrt(d_in)), drawn from an explicit generator."""
    linear = nn.utils.skip_init(nn.Linear, d_in, d_out)  # spares the global generator
    bound = d_in**-0.5
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return linear
