r"""The read-out in closed form: a model's decoder is set to ridge regression on the features of the untrained model.

One untrained layer of filters with a linear read-out is the model that the theory of kernel regression is about
(:mod:`tdi_lib.theory`). :func:`ridge_readout_` makes a network start there, at kernel regression, and not at noise.
:class:`~tdi_lib.ssm.TimeStatistics` are features that such a read-out can use: what each filter does over time.

Shapes: ``P`` samples, ``B`` batch, ``L`` time, ``D`` input channels, ``H`` filters, ``F`` features, ``K`` outputs,
``R`` ridges.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are first used
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor, nn

from tdi_lib.samples import check_lengths, instance_of, one_of, positive_int, real_array
from tdi_lib.ssm import TimeStatistics, random_parts

__all__ = ["RandomConvolutions", "ReadoutReport", "ridge_readout_"]

RIDGES = np.logspace(-5, 3, 33)
"""Ridges to choose from, relative to the mean of the kernel's diagonal."""

_STEPS = 16_384  # output values of a filter that its thresholds are taken from
_SEQUENCES = 512  # sequences at most that they are taken from
_FLOOR = 0.1  # least standard deviation of a feature, relative to the root mean square of all of them


class RandomConvolutions(nn.Module):
    """Random convolutions of nine taps and the share of time above one threshold: the rival that needs no training.

    A plain version of arXiv 1910.13051 and 2012.08791: normal taps of zero sum, dilations log-uniform up to the length,
    each kernel on a random part of the input channels. Its decoder is set by :func:`ridge_readout_`.

    Args:
        d_input: channels D.
        d_output: width K of the output.
        length: of the sequences, which bounds the dilations; at least 9.
        n_kernels: number of convolutions.
        generator: source of all randomness; the global one if omitted.

    >>> RandomConvolutions(2, 3, 50, n_kernels=16)(torch.zeros(4, 50, 2)).shape
    torch.Size([4, 3])
    """

    weight: Tensor

    def __init__(
        self,
        d_input: int,
        d_output: int,
        length: int,
        *,
        n_kernels: int = 2000,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        d_input = positive_int("d_input", d_input)
        n_kernels = positive_int("n_kernels", n_kernels)
        octaves = math.log2((positive_int("length", length, minimum=9) - 1) / 8)
        taps = torch.randn(n_kernels, d_input, 9, generator=generator)
        heard = random_parts(n_kernels, d_input, generator)
        self.register_buffer("weight", (taps - taps.mean(dim=2, keepdim=True)) * heard[:, :, None])
        # one of twelve dilations, so that kernels of one dilation run together
        steps = torch.linspace(0, octaves, 12).exp2().long()
        draw = torch.randint(12, (n_kernels,), generator=generator).sort().values
        self.dilations = [(int(d), int((steps[draw] == d).sum())) for d in steps[draw].unique()]
        self.pool = TimeStatistics(n_kernels, n_thresholds=1, moments=False)
        self.decoder = nn.Linear(n_kernels, positive_int("d_output", d_output))

    def forward(self, x: Float[Tensor, "B L D"], lengths: Tensor | None = None) -> Float[Tensor, "B K"]:
        """Predict from ``x`` (B, L, D), padded at the ends if ``lengths`` (B,) is given."""
        mask = None
        if lengths is not None:
            mask = torch.arange(x.shape[1], device=x.device) < lengths.to(x.device)[:, None]  # (B L)
            x = x.masked_fill(~mask[:, :, None], 0.0)
        parts = self.weight.split([count for _, count in self.dilations])
        outputs = []
        for weight, (dilation, _) in zip(parts, self.dilations, strict=True):
            padded = nn.functional.pad(x, (0, 0, 4 * dilation, 4 * dilation))
            shifted = [padded[:, k * dilation : k * dilation + x.shape[1]] for k in range(9)]
            taps = torch.cat(shifted, dim=2)  # (B L 9*D)
            outputs.append(taps @ weight.permute(2, 1, 0).flatten(0, 1))  # one product: dilated conv1d is slow on a CPU
        return self.decoder(self.pool(torch.cat(outputs, dim=2), mask))


@dataclasses.dataclass(frozen=True)
class ReadoutReport:
    """What :func:`ridge_readout_` found.

    A sample was left out of the ridge regression, not of what came before. Filters that were matched to its label
    (:func:`~tdi_lib.tdi.tdi_init_`), or trained on it, have seen it: then what is said of the samples left out, and the
    temperature that follows from them, is optimistic. Error on new samples takes samples that nothing has seen.

    Attributes:
        ridge: the one chosen, relative to the mean of the kernel's diagonal.
        ridges: those it was chosen from (R,).
        left_out: of each, mean squared error of the samples (or groups) left out, per output (R,).
        evidence: of each, log marginal likelihood in nats (R,).
        temperature: what the scores of one-hot targets are divided by to be logits; None for real targets.
        losses: of every sample, left out (P,): in nats with that temperature; mean squared error for real targets.
        accuracy: of the samples left out; None for real targets. Where there is nothing to learn it lies below
            chance, for leaving a sample out makes the other class the larger one: judge by ``loss``.
        n_samples: P.
        n_features: F.
        n_groups: number of groups; P without groups.
        seconds: wall time.
    """

    ridge: float
    ridges: np.ndarray
    left_out: np.ndarray
    evidence: np.ndarray
    temperature: float | None
    losses: np.ndarray
    accuracy: float | None
    n_samples: int
    n_features: int
    n_groups: int
    seconds: float

    @property
    def loss(self) -> float:
        """Mean of ``losses``."""
        return float(self.losses.mean())

    def __str__(self) -> str:
        what = "samples" if self.n_groups == self.n_samples else f"samples in {self.n_groups} groups"
        lines = [
            f"ridge read-out: {self.n_samples} {what}, {self.n_features} features, {self.seconds:.1f} s",
            f"ridge {self.ridge:.2g} of the kernel's mean diagonal",
        ]
        if self.temperature is None:
            return "\n".join([*lines, f"left out: mean squared error {self.loss:.3g}"])
        lines += [
            f"temperature {self.temperature:.2g}",
            f"left out: loss {self.loss:.3g}, accuracy {self.accuracy:.3f}",
        ]
        return "\n".join(lines)


def ridge_readout_(
    model: nn.Module,
    x: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    criterion: str = "left-out",
    decoder: str = "decoder",
    batch_size: int = 16,
) -> ReadoutReport:
    r"""Set the model's decoder in place to ridge regression on what enters it, and nothing else.

    The features :math:`\phi` (P, F) are standardized; weights and an intercept, which is not penalized, minimize
    :math:`\sum_i \|y_i - b - W\phi_i\|^2 + \lambda\|W\|^2`. With R the matrix that makes residuals of targets, the
    residual of a sample that was *left out*, the intercept fitted without it too, is exactly

    .. math:: y_i - \hat y_i^{(-i)} = \frac{(Ry)_i}{R_{ii}}, \qquad
        R = \lambda(K + \lambda I)^{-1} - \tfrac1P 11^\top ,

    with K the kernel of the centered features, and of a group G it is :math:`R_{GG}^{-1}(Ry)_G`. The term
    :math:`\frac1P 11^\top` is the intercept: without it the mean of the targets would tell each sample its own label.

    Class labels become one-hot targets. The logits are the scores over one temperature, which minimizes the
    cross-entropy of the left-out scores. Its prior, after Platt, is as if of two more samples one had been answered
    wrongly: a share of 1/(P + 2) of every target goes to the other classes, so that the model is never surer than
    P samples, or so many groups, allow.

    A :class:`~tdi_lib.ssm.TimeStatistics` in the model first takes its scales and thresholds from ``x``. They, and the
    standardization, are taken from all samples, the one left out included, but from no label. Only filters that have
    seen no label of these samples make the left-out error an honest one (:class:`ReadoutReport`).

    Args:
        model: with a :class:`torch.nn.Linear` that has a bias, makes its outputs, and reads one vector per sequence.
        x: training sequences (P, L, D), or whatever the model reads.
        y: class labels (P,), or real targets (P,) or (P, K).
        groups: of every sample (P,), such as its speaker: a group is left out as a whole.
        lengths: (P,) of sequences that are padded at their ends; the model is then called as ``model(x, lengths)``.
        criterion: what chooses the ridge: the error of what is ``left-out``, or the ``evidence``.
        decoder: dotted name of the linear layer.
        batch_size: sequences at once; few keep a wide layer's activations in the processor's cache.

    Raises:
        TypeError, ValueError: naming the argument; the model is then as it was.

    >>> from tdi_lib import SequenceModel
    >>> x = np.random.default_rng(0).normal(size=(60, 50, 1))
    >>> x[::2] = x[::2].cumsum(axis=1)
    >>> model = SequenceModel(1, 2, d_model=8, d_state=8, n_layers=1, pooling="statistics")
    >>> report = ridge_readout_(model, x, np.arange(60) % 2)
    >>> report.accuracy > 0.9
    True
    """
    start = time.perf_counter()
    criterion = one_of("criterion", criterion, ("left-out", "evidence"))
    batch_size = positive_int("batch_size", batch_size)
    linear = _decoder(model, decoder)
    inputs = _inputs(x, lengths, linear)
    n_samples = len(inputs[0])
    labels, target = _targets(y, n_samples, linear.out_features)
    members = _groups(groups, n_samples)
    with _restored_on_error(model) as pools:
        for pool in pools:
            _fit_statistics_(model, pool, inputs, batch_size)
        features, source = _features(model, linear, inputs, batch_size, decoder)
        bad = ~np.isfinite(features).all(axis=1)
        if bad.any():
            raise ValueError(
                f"model must have finite features, got NaN or infinite ones for {bad.sum()} of {n_samples} samples, "
                f"the first at index {bad.argmax()}"
            )
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        typical = math.sqrt(np.mean(deviation**2))
        if typical == 0:
            raise ValueError("model must have features that differ between samples, got constant ones")
        deviation = np.maximum(deviation, _FLOOR * typical)
        path = _ridge_path((features - mean) / deviation, target, members)
        best = int(path.left_out.argmin() if criterion == "left-out" else path.evidence.argmax())
        scores = path.scores[best]
        temperature, n_groups = None, n_samples if members is None else len(members)
        if labels is not None:
            temperature = _temperature(scores, labels, n_groups)
            log_p = scipy.special.log_softmax(scores / temperature, axis=1)
            losses = -log_p[np.arange(n_samples), labels]
            accuracy = float((scores.argmax(axis=1) == labels).mean())
        else:
            losses, accuracy = ((scores - target) ** 2).mean(axis=1), None
        sharpness = 1 / (temperature or 1.0)
        _write_(linear, source, mean, deviation, sharpness * path.weights[best], sharpness * target.mean(axis=0))
    return ReadoutReport(
        float(RIDGES[best]),
        RIDGES.copy(),
        path.left_out,
        path.evidence,
        temperature,
        losses,
        accuracy,
        n_samples,
        features.shape[1],
        n_groups,
        time.perf_counter() - start,
    )


def _decoder(model: nn.Module, name: str) -> nn.Linear:
    instance_of("model", model, nn.Module)
    linears = {path: each for path, each in model.named_modules() if isinstance(each, nn.Linear)}
    if name not in linears:
        raise ValueError(f"decoder must name one of the model's linear layers ({', '.join(linears)}), got {name!r}")
    if linears[name].bias is None:
        raise ValueError(f"decoder must have a bias, but {name!r} has none")
    return linears[name]


def _inputs(x: ArrayLike, lengths: ArrayLike | None, linear: nn.Linear) -> list[Tensor]:
    """Sequences, their padding zero, and their lengths (P,) if any is padded."""
    what = "samples (P, ...)"
    inputs = real_array("x", x, ndim=(2, 3, 4), what=what, finite=False)
    ends = check_lengths(inputs, lengths, minimum=1)
    if ends is not None:
        inputs[np.arange(inputs.shape[1]) >= ends[:, None]] = 0.0
    inputs = real_array("x", inputs, ndim=(2, 3, 4), what=what)
    if len(inputs) < 4:
        raise ValueError(f"x must hold at least 4 samples, got {len(inputs)}")
    tensors = [torch.as_tensor(inputs, dtype=linear.weight.dtype)]
    return tensors if ends is None else [*tensors, torch.as_tensor(ends.astype(np.int64))]


def _targets(y: ArrayLike, n_samples: int, n_outputs: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Labels (P,), None for real targets; and targets (P, K)."""
    target = real_array("y", y, ndim=(1, 2), what="labels (P,) or targets (P, K)")
    if len(target) != n_samples:
        raise ValueError(f"y must hold one target per sample of x ({n_samples}), got shape {target.shape}")
    if y.is_floating_point() if isinstance(y, Tensor) else np.asarray(y).dtype.kind == "f":
        target = target.reshape(n_samples, -1)
        if target.shape[1] != n_outputs:
            raise ValueError(f"y must have the shape of the model's output (P, {n_outputs}), got {target.shape}")
        if not np.ptp(target, axis=0).any():
            raise ValueError("y must hold targets that differ, got constant ones")
        return None, target
    if target.ndim > 1:
        raise ValueError(f"y must be one class label per sample (P,), or real targets as floats, got {target.shape}")
    labels = target.astype(np.int64)
    if labels.min() < 0 or labels.max() >= n_outputs:
        raise ValueError(f"y must be class labels in [0, {n_outputs - 1}], got [{labels.min()}, {labels.max()}]")
    if labels.min() == labels.max():
        raise ValueError(f"y must hold at least two classes, got only class {labels[0]}")
    return labels, np.eye(n_outputs)[labels]


def _groups(groups: ArrayLike | None, n_samples: int) -> list[np.ndarray] | None:
    """Indices of every group's samples."""
    if groups is None:
        return None
    names = np.asarray(groups.detach().cpu() if isinstance(groups, Tensor) else groups)
    if names.shape != (n_samples,):
        raise ValueError(f"groups must hold one group per sample of x ({n_samples},), got shape {names.shape}")
    _, index = np.unique(names, return_inverse=True)
    if index.max() == 0:
        raise ValueError(f"groups must be at least two, got only {names[0]!r}")
    order = np.argsort(index, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(index[order])) + 1)


@contextlib.contextmanager
def _restored_on_error(model: nn.Module) -> Iterator[list[TimeStatistics]]:
    """The model's :class:`TimeStatistics`, in evaluation mode; if anything fails they are put back as they were."""
    pools = [module for module in model.modules() if isinstance(module, TimeStatistics)]
    before = [{name: value.clone() for name, value in pool.state_dict().items()} for pool in pools]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield pools
    except BaseException:
        for pool, state in zip(pools, before, strict=True):
            pool.load_state_dict(state)
        raise
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def _batches(model: nn.Module, inputs: list[Tensor], batch_size: int) -> Iterator[Any]:
    """The model's outputs, batch by batch."""
    device = next(model.parameters()).device
    for batch in zip(*(part.split(batch_size) for part in inputs), strict=True):
        yield model(*(part.to(device) for part in batch))


def _fit_statistics_(model: nn.Module, pool: TimeStatistics, inputs: list[Tensor], batch_size: int) -> None:
    """Scales and thresholds of a pool from evenly spaced steps of evenly spaced sequences."""
    keep = np.linspace(0, len(inputs[0]) - 1, min(_SEQUENCES, len(inputs[0]))).astype(int)
    inputs = [part[keep] for part in inputs]
    count = int(inputs[1].sum()) if len(inputs) > 1 else inputs[0].shape[0] * inputs[0].shape[1]
    stride, seen, kept = -(-count // _STEPS), 0, []

    def look(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        h, mask = (*arguments, None)[:2]
        values = h.flatten(0, 1) if mask is None else h[mask]  # (T H)
        kept.append(values[-seen % stride :: stride].cpu())
        seen += len(values)

    hook = pool.register_forward_pre_hook(look)
    try:
        for _ in _batches(model, inputs, batch_size):
            pass
    finally:
        hook.remove()
    pool.fit_(torch.cat(kept))


def _features(
    model: nn.Module, linear: nn.Linear, inputs: list[Tensor], batch_size: int, name: str
) -> tuple[np.ndarray, TimeStatistics | None]:
    """What enters the decoder (P, F), and the pool that it comes from."""
    calls: list[tuple[Tensor, Tensor]] = []
    pooled: dict[int, TimeStatistics] = {}
    hooks = [linear.register_forward_hook(lambda _m, args, out: calls.append((args[0], out)))]
    for module in model.modules():
        if isinstance(module, TimeStatistics):
            hooks.append(module.register_forward_hook(lambda m, _a, out: pooled.update({id(out): m})))
    rows, source = [], None
    try:
        for output in _batches(model, inputs, batch_size):
            if len(calls) != 1 or output is not calls[0][1]:
                raise ValueError(
                    f"decoder must be called once and make the model's output, but {name!r} was called {len(calls)} "
                    f"times and its output is not the model's"
                )
            entering = calls.pop()[0]
            if entering.ndim != 2:
                raise ValueError(
                    f"model must pool its sequences: decoder must read one vector per sample (B, F), got shape "
                    f"{tuple(entering.shape)}"
                )
            source = pooled.get(id(entering))
            pooled.clear()
            rows.append(entering.double().cpu().numpy())
    finally:
        for hook in hooks:
            hook.remove()
    return np.concatenate(rows), source


@dataclasses.dataclass(frozen=True)
class _Path:
    """Ridge regressions on the same samples for all of :data:`RIDGES`: weights (R F K), scores left out (R P K)."""

    weights: np.ndarray
    scores: np.ndarray
    left_out: np.ndarray
    evidence: np.ndarray


def _ridge_path(
    features: np.ndarray, target: np.ndarray, groups: list[np.ndarray] | None, dual: bool | None = None
) -> _Path:
    r"""Ridge regressions with an intercept on centered features (P, F), by the smaller of two eigenproblems.

    Dual: in an orthonormal basis without the constant, :math:`K = Q \Lambda Q^\top`, and R is :math:`\lambda` times
    :math:`Q(\Lambda + \lambda)^{-1}Q^\top`. Primal: with the principal components Z,
    :math:`R = I - \frac1P 11^\top - Z(\Lambda + \lambda)^{-1}Z^\top`. A common factor of R cancels in what is left out.
    """
    n_samples, n_features = features.shape
    if dual is None:
        dual = n_samples - 1 <= n_features
    if dual:
        basis = _without_constant(n_samples)  # (P P-1)
        projected = basis.T @ features
        values, axes = np.linalg.eigh(projected @ projected.T)
        modes = basis @ axes
    else:
        values, axes = np.linalg.eigh(features.T @ features)
        modes = features @ axes
    values = np.maximum(values, 0.0)
    centered = target - target.mean(axis=0)
    c = modes.T @ centered  # (M K)
    weights, scores, left_out, evidence = [], [], [], []
    for ridge in RIDGES * values.sum() / n_samples:
        inverse = 1 / (values + ridge)
        fit = inverse[:, None] * c
        if dual:
            residual, quadratic = modes @ fit, (c * fit).sum()
            weights.append(features.T @ residual)
        else:
            residual, quadratic = centered - modes @ fit, ((centered**2).sum() - (c * fit).sum()) / ridge
            weights.append(axes @ fit)
        misses = _left_out(modes, inverse, residual, groups, dual)
        scores.append(target - misses)
        left_out.append((misses**2).mean())
        log_det = -np.log(inverse).sum() + (n_samples - 1 - len(values)) * math.log(ridge)
        free = (n_samples - 1) * target.shape[1]
        evidence.append(-0.5 * (free * (1 + math.log(2 * math.pi * quadratic / free)) + target.shape[1] * log_det))
    return _Path(np.array(weights), np.array(scores), np.array(left_out), np.array(evidence))


def _without_constant(size: int) -> np.ndarray:
    """An orthonormal basis of what is orthogonal to the constant vector (P, P-1): a reflection but for one column."""
    vector = np.full(size, 1 / math.sqrt(size))
    vector[0] += 1
    return (np.eye(size) - np.outer(vector, vector) / vector[0])[:, 1:]


def _left_out(
    modes: np.ndarray, inverse: np.ndarray, residual: np.ndarray, groups: list[np.ndarray] | None, dual: bool
) -> np.ndarray:
    """Residuals (P, K) of samples, or groups, that were left out of the fit."""
    n_samples = len(modes)
    if groups is None:
        own = modes**2 @ inverse  # (P)
        return residual / (own if dual else 1 - 1 / n_samples - own)[:, None]
    misses = np.empty_like(residual)
    for group in groups:
        block = (modes[group] * inverse) @ modes[group].T
        if not dual:
            block = np.eye(len(group)) - 1 / n_samples - block
        misses[group] = np.linalg.solve(block, residual[group])
    return misses


def _temperature(scores: np.ndarray, labels: np.ndarray, n_groups: int) -> float:
    """Temperature of the least cross-entropy, a share of 1 / (n_groups + 2) of every target being another class."""
    n_classes, doubt = scores.shape[1], 1 / (n_groups + 2)
    smoothed = np.full(scores.shape, doubt / (n_classes - 1))  # (P K)
    smoothed[np.arange(len(labels)), labels] = 1 - doubt

    def cross_entropy(log_t: float) -> float:
        return -float((smoothed * scipy.special.log_softmax(scores * math.exp(-log_t), axis=1)).sum())

    return math.exp(scipy.optimize.minimize_scalar(cross_entropy, bounds=(-7.0, 5.0), method="bounded").x)


@torch.no_grad()
def _write_(
    linear: nn.Linear,
    source: TimeStatistics | None,
    mean: np.ndarray,
    deviation: np.ndarray,
    weights: np.ndarray,
    intercept: np.ndarray,
) -> None:
    """Put the solution into the decoder, and the standardization into the pool before it, else into the decoder too."""
    if source is None:
        weights = weights / deviation[:, None]
        intercept = intercept - mean @ weights
    new = {name: torch.as_tensor(value).to(linear.weight) for name, value in
           (("weight", weights.T), ("bias", intercept), ("mean", mean), ("deviation", deviation))}  # fmt: skip
    if not all(torch.isfinite(value).all() for value in new.values()):
        raise ValueError(f"model must have weights of a type that can hold the solution, got {linear.weight.dtype}")
    linear.weight.copy_(new["weight"])
    linear.bias.copy_(new["bias"])
    if source is not None:
        source.mean.copy_(new["mean"])
        source.deviation.copy_(new["deviation"])
