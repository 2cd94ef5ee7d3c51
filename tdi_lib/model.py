"""Deep sequence models around :class:`tdi_lib.ssm.DiagonalSSM`: the S4D layer and a residual stack of them.

Shapes: ``B`` batch, ``L`` time, ``D`` input channels, ``H = d_model``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tdi_lib import _checks
from tdi_lib.ssm import DiagonalSSM

__all__ = ["S4DLayer", "SequenceModel"]

POOLINGS = ("mean", "last", "none")


class S4DLayer(nn.Module):
    """Filter each channel, then mix the channels: SSM, feed-through, GELU, gated linear unit (arXiv 2206.11893).

    Args:
        d_model, d_state, init, dt_min, dt_max, generator: as for :class:`~tdi_lib.ssm.DiagonalSSM`.
        dropout: probability of zeroing an activation before the mixing.
        feedthrough: add ``D * u``, one learned weight per channel, to the filter's output.

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
        init: str | Callable[[int], np.ndarray] = "lin",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.ssm = DiagonalSSM(d_model, d_state, init=init, dt_min=dt_min, dt_max=dt_max, generator=generator)
        self.D = nn.Parameter(torch.randn(self.ssm.d_model, generator=generator)) if feedthrough else None
        self.dropout = nn.Dropout(_checks.real_number("dropout", dropout, low=0.0, high=1.0))
        self.mix = _linear(self.ssm.d_model, 2 * self.ssm.d_model, generator)

    def forward(self, x: Float[Tensor, "B L H"]) -> Float[Tensor, "B L H"]:
        """Causal: the output at t depends on the input up to t."""
        _checks.real_tensor("x", x, "B L H", {"H": self.ssm.d_model})
        y = self.ssm(x.mT).mT.contiguous()  # (B L H); element-wise kernels are slow on transposed memory
        if self.D is not None:
            y = y + self.D * x
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
        pooling: ``mean`` over time or ``last`` step, giving (B, d_output); ``none`` gives (B, L, d_output).
        input_skip: whether the raw input may bypass the first filter, through its feed-through and the first residual.
        init, dt_min, dt_max: as for :class:`~tdi_lib.ssm.DiagonalSSM`, in every layer.
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
        input_skip: bool = True,
        init: str | Callable[[int], np.ndarray] = "lin",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.d_input = _checks.positive_int("d_input", d_input)
        d_output = _checks.positive_int("d_output", d_output)
        d_model = _checks.positive_int("d_model", d_model)
        n_layers = _checks.positive_int("n_layers", n_layers)
        self.pooling = _checks.choice("pooling", pooling, POOLINGS)
        self.input_skip = input_skip
        self.encoder = _linear(self.d_input, d_model, generator)
        self.layers = nn.ModuleList(
            S4DLayer(
                d_model,
                d_state,
                dropout=dropout,
                feedthrough=input_skip or index > 0,
                init=init,
                dt_min=dt_min,
                dt_max=dt_max,
                generator=generator,
            )
            for index in range(n_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(n_layers))  # last: final
        self.dropout = nn.Dropout(dropout)
        self.decoder = _linear(d_model, d_output, generator)

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
        _checks.real_tensor("x", x, "B L D", {"D": self.d_input})
        mask = None if lengths is None else self._mask(lengths, x)
        if mask is not None:
            x = x.masked_fill(~mask[:, :, None], 0.0)
        h = self.encoder(x)  # (B L H)
        for index, layer in enumerate(self.layers):
            y = self.dropout(layer(h if index == 0 else self.norms[index - 1](h)))
            h = h + y if index > 0 or self.input_skip else y
        h = self.norms[-1](h)
        if self.pooling == "mean":
            h = h.mean(dim=1) if mask is None else (h * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)  # (B H)
        elif self.pooling == "last":
            last = -1 if lengths is None else lengths.to(h.device) - 1
            h = h[torch.arange(len(h), device=h.device), last]  # (B H)
        return self.decoder(h)

    def _mask(self, lengths: Tensor, x: Tensor) -> Bool[Tensor, "B L"]:
        lengths = torch.as_tensor(lengths, device=x.device)
        if lengths.shape != x.shape[:1] or lengths.is_floating_point() or lengths.is_complex():
            raise ValueError(
                f"lengths must be integers of shape ({len(x)},), got {tuple(lengths.shape)} {lengths.dtype}"
            )
        if lengths.min() < 1 or lengths.max() > x.shape[1]:
            raise ValueError(f"lengths must lie in [1, {x.shape[1]}], got [{lengths.min()}, {lengths.max()}]")
        return torch.arange(x.shape[1], device=x.device) < lengths[:, None]

    def parameter_groups(self, lr: float, ssm_lr: float = 1e-3, weight_decay: float = 0.01) -> list[dict[str, Any]]:
        """Groups for any torch optimiser, as S4 trains: poles and steps slowly and never decayed.

        Three groups: weight matrices (``lr``, decayed), biases, norms, C and D (``lr``, not decayed), and the SSMs'
        A and dt (``min(lr, ssm_lr)``, not decayed).

        >>> model = SequenceModel(1, 2, d_model=8, d_state=4, n_layers=1)
        >>> [(g["lr"], g["weight_decay"]) for g in model.parameter_groups(1e-2)]
        [(0.01, 0.01), (0.01, 0.0), (0.001, 0.0)]
        """
        lr = _checks.real_number("lr", lr, low=0.0)
        ssm_lr = _checks.real_number("ssm_lr", ssm_lr, low=0.0)
        decay = _checks.real_number("weight_decay", weight_decay, low=0.0)
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
