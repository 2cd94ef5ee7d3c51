"""One untrained layer with a read-out in closed form, as a row: the model that kernel regression is the theory of.

Nothing is trained, so every example can be fitted to: none is held back to choose a step.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tdi_lib.data import sets
from tdi_lib.readout import RandomConvolutions, ReadoutReport, ridge_readout_
from tdi_lib.samples import MIN_LENGTH, lengths_of, one_of
from tdi_lib.ssm import SequenceModel
from tdi_lib.study.plans import UNTRAINED, Trial
from tdi_lib.study.trial import load_set, scale_of
from tdi_lib.tdi import flat_init_, tdi_init_
from tdi_lib.training import scores_of

__all__ = ["FOLDS", "KERNELS", "TESTED", "LogBands", "run_closed_form"]

TESTED = 600
"""Test examples at most, drawn by the seed: 128 filters on all of them would cost more than everything else."""

KERNELS = 1000
"""Random convolutions."""

FOLDS = 5
"""Parts of the examples, each left out of the match once (``crossed``)."""


class LogBands(nn.Module):
    """Log-power of the sequence in bands of its periodogram, then a linear layer: the spectral rival without filters.

    A band holds ever more of the periodogram's lines: edges are evenly spaced in the square root of frequency.

    Args:
        d_input: channels D.
        d_output: width K of the output.
        length: of the sequences, which bounds the number of bands.
        n_bands: bands at most.

    >>> LogBands(2, 3, 50)(torch.zeros(4, 50, 2)).shape
    torch.Size([4, 3])
    """

    def __init__(self, d_input: int, d_output: int, length: int, *, n_bands: int = 64) -> None:
        super().__init__()
        lines = length // 2  # without the mean
        edges = 1 + lines * np.linspace(0, 1, min(n_bands, lines) + 1) ** 2
        edges = np.unique(np.maximum(np.round(edges), 1 + np.arange(len(edges))).clip(max=lines + 1).astype(int))
        member = (np.arange(lines + 1) >= edges[:-1, None]) & (np.arange(lines + 1) < edges[1:, None])
        self.register_buffer("member", torch.as_tensor(member / member.sum(axis=1, keepdims=True)).float())  # (M F)
        self.decoder = nn.Linear(d_input * (len(edges) - 1), d_output)

    def forward(self, x: Float[Tensor, "B L D"], lengths: Tensor | None = None) -> Float[Tensor, "B K"]:
        """Predict from ``x`` (B, L, D), zero beyond ``lengths`` (B,)."""
        steps = torch.as_tensor(x.shape[1]) if lengths is None else lengths.to(x.device)[:, None, None]
        power = torch.fft.rfft(x, dim=1).abs().square() / steps  # (B F D)
        bands = torch.einsum("mf,bfd->bmd", self.member.to(power), power)
        return self.decoder((bands + 1e-6).log().flatten(1))


Build = Callable[[np.ndarray, np.ndarray, np.ndarray | None], nn.Module]  # from sequences, labels and lengths


def _builder(trial: Trial, data: sets.SequenceDataset) -> Build:
    """Draws the untrained model of a trial; filters that are matched look at what it is called with."""
    options = UNTRAINED[one_of("trial.init", trial.init, tuple(UNTRAINED))]

    def build(x: np.ndarray, y: np.ndarray, lengths: np.ndarray | None) -> nn.Module:
        generator = torch.Generator().manual_seed(trial.seed)
        if trial.init == "convolutions":
            return RandomConvolutions(data.d_input, data.n_classes, data.length, n_kernels=KERNELS, generator=generator)
        if trial.init == "bands":
            return LogBands(data.d_input, data.n_classes, data.length)
        model = SequenceModel(
            data.d_input,
            data.n_classes,
            d_model=trial.d_model,
            d_state=trial.d_state,
            n_layers=1,
            pooling="statistics",
            dt_min=trial.dt_min,
            dt_max=trial.dt_max,
            generator=generator,
        )
        if lengths is not None:  # filters are placed by sequences that are long enough for a spectrum
            enough = lengths >= MIN_LENGTH
            x, y, lengths = x[enough], y[enough], lengths[enough]
        if options is not None and options.get("method") == "flat":
            flat_init_(model, x, resolutions=options["resolutions"], lengths=lengths, generator=generator)
        elif options is not None:
            tdi_init_(model, x, y, lengths=lengths, generator=generator, **options)
        return model

    return build


def _crossed(
    build: Build,
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray | None,
    lengths: np.ndarray | None,
    seed: int,
) -> float:
    """Left-out loss with filters that did not see the label of what is left out: they are matched without its fold."""
    rng = np.random.default_rng(seed)
    if groups is None:
        fold = np.empty(len(y), int)
        fold[np.lexsort((rng.random(len(y)), y))] = np.arange(len(y)) % FOLDS  # stratified
    else:
        names, member = np.unique(groups, return_inverse=True)
        fold = rng.permutation(np.arange(len(names)) % FOLDS)[member]
    losses = np.empty(len(y))
    for index in np.unique(fold):
        seen = fold != index
        model = build(x[seen], y[seen], None if lengths is None else lengths[seen])
        losses[~seen] = ridge_readout_(model, x, y, groups=groups, lengths=lengths).losses[~seen]
    return float(losses.mean())


def run_closed_form(trial: Trial) -> dict[str, Any]:
    """Fit the read-out of one untrained layer and score it on the test set; returns its row.

    Besides the configuration: test ``loss`` (nats), ``accuracy`` and ``calibration`` on :data:`TESTED` examples; the
    ``ridge`` that was chosen, with its ``evidence`` (nats a sample) and ``left_out`` loss; for filters that are matched
    to labels also ``crossed``, the left-out loss where they did not see the label of the sample left out, which is what
    may be compared with the ``left_out`` of others; and ``init_seconds``, the time of the match and the fit.

    Raises:
        ValueError: naming a field of the trial.
    """
    if (trial.readout, trial.n_layers, trial.max_steps, trial.pretrain_steps) != ("ridge", 1, 0, 0):
        raise ValueError(f"trial must have a ridge read-out, one layer and no steps of training, got {trial}")
    data = load_set(trial.dataset)
    part = data.subset(trial.n, seed=trial.seed)
    x, y = np.concatenate([part.x, part.x_val]), np.concatenate([part.y, part.y_val])
    groups = None if data.groups is None else data.groups[part.indices]
    lengths, mean, scale = scale_of(x)
    x = (x - mean) / scale
    build, start = _builder(trial, data), time.perf_counter()
    model = build(x, y, lengths)
    report: ReadoutReport = ridge_readout_(model, x, y, groups=groups, lengths=lengths)
    seconds = time.perf_counter() - start
    sees_labels = trial.init in {"tdi", "cross"} or trial.init.startswith("scalogram")
    shown = np.random.default_rng(trial.seed).permutation(len(data.y_test))[:TESTED]
    scores = scores_of(_logits(model, (data.x_test[shown] - mean) / scale), torch.as_tensor(data.y_test[shown]))
    return dataclasses.asdict(trial) | {
        "loss": scores.loss,
        "accuracy": scores.accuracy,
        "calibration": scores.calibration,
        "ridge": report.ridge,
        "evidence": float(report.evidence.max()) / len(y),
        "left_out": report.loss,
        "crossed": _crossed(build, x, y, groups, lengths, trial.seed) if sees_labels else None,
        "init_seconds": seconds,
    }


@torch.no_grad()
def _logits(model: nn.Module, x: np.ndarray) -> Tensor:
    """(P, K), a few sequences at once: what many filters do then stays in the processor's cache."""
    model.eval()
    lengths = lengths_of(x)
    parts = [torch.as_tensor(np.nan_to_num(x), dtype=torch.float32)]
    if lengths is not None:
        parts.append(torch.as_tensor(lengths))
    size = max(1, 2**19 // (x.shape[1] * (KERNELS if isinstance(model, RandomConvolutions) else 128)))
    return torch.cat([model(*batch) for batch in zip(*(part.split(size) for part in parts), strict=True)])
