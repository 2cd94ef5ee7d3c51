"""From samples to a trained model that can be saved: split, initialize, train, score, compare.

The model is one layer of filters (or more) with :class:`~tdi_lib.ssm.TimeStatistics` and a linear read-out. The
training samples choose among several banks of filters (:func:`~tdi_lib.choice.choose_start`), the read-out is set in
closed form, then the filters are trained with the read-out held fixed. The initialization counts among the
checkpoints: training that does not help on the validation samples is taken back.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are first used
import torch
from numpy.typing import ArrayLike

from tdi_lib.app.diagnose import joined, overlapping
from tdi_lib.choice import choose_start, named_starts
from tdi_lib.readout import ridge_readout_
from tdi_lib.samples import (
    MIN_LENGTH,
    SEQUENCES,
    as_array,
    group_members,
    lengths_of,
    one_of,
    positive_int,
    real_array,
    understand_targets,
)
from tdi_lib.ssm import SequenceModel
from tdi_lib.tdi import flat_init_, tdi_init_
from tdi_lib.training import FitResult, fit, predict

__all__ = ["Trained", "train"]

INITS = ("auto", "tdi", "flat", "lin")
NAMES = {"tdi": "matched (TDI)", "flat": "flat bank", "lin": "S4D-Lin"}
_CONSIDERED = ("default", "flat 0.2", "flat 0.05", "flat 0.008", "flat mixed", "matched 0.05", "matched auto")
_CHANNELS = 48  # of the models that choose: a third of a training's time, and hardly worse a choice than with many
_FOLDS = 3
KIND = "trained by tdi"
_PARTS = 5  # one for the test, one of the others for validation
_LEAST = {"training": 8, "validation": 3, "test": 3}


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A trained model and all it takes to use it.

    Attributes:
        model: the network, on standardized sequences.
        recipe: plain numbers and texts: sizes, classes, standardization, what was trained on, scores; all that is saved
            beside the weights.
    """

    model: SequenceModel
    recipe: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the model's outputs; none for real targets."""
        return tuple(self.recipe["classes"])

    def outputs(self, x: ArrayLike) -> np.ndarray:
        """Probabilities of the classes, or real targets (P, K), for sequences (P, L) or (P, L, D), ended by NaN."""
        inputs, lengths = _inputs(x, self.recipe["mean"], self.recipe["scale"])
        raw = predict(self.model, inputs, lengths=lengths).double().numpy()
        if self.recipe["classes"]:
            return np.asarray(scipy.special.softmax(raw, axis=1))
        return np.asarray(raw * np.array(self.recipe["y_scale"]) + np.array(self.recipe["y_mean"]))

    def predict(self, x: ArrayLike) -> np.ndarray:
        """Names of the classes (P,), or real targets, (P,) of one and (P, K) of several."""
        outputs = self.outputs(x)
        if self.recipe["classes"]:
            return np.array(self.classes)[outputs.argmax(axis=1)]
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def save(self, path: str | Path) -> None:
        """Weights and recipe as one safetensors file; nothing in it is ever run."""
        from safetensors.torch import save

        tensors = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        temporary = Path(path).with_name(Path(path).name + ".tmp")
        temporary.write_bytes(save(tensors, {"tdi": json.dumps(self.recipe, allow_nan=False)}))
        temporary.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "Trained":
        """What :meth:`save` wrote.

        Raises:
            ValueError: for any other file.
        """
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file

        try:
            with safe_open(str(path), "pt") as stored:
                recipe = json.loads((stored.metadata() or {}).get("tdi", "{}"))
        except (SafetensorError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: is not a safetensors file: {error}") from None
        if recipe.get("kind") != KIND:
            raise ValueError(f"{path}: expected a model that tdi train wrote, got other weights")
        model = SequenceModel(**recipe["model"])
        model.load_state_dict(load_file(path))
        return cls(model.eval(), recipe)

    def text(self) -> str:
        """What was trained, how well it does on the test samples, and beside what."""
        recipe, scores = self.recipe, self.recipe["scores"]
        n = recipe["n"]
        lines = [f"note        {note}" for note in recipe["notes"]]
        lines.append(f"split       {n['training']} samples to train, {n['validation']} to choose, {n['test']} to test")
        fitted = recipe["training"]
        took = (
            f"best at step {fitted['best_step']} of {fitted['steps']}" if fitted["best_step"] else "no step lowered it"
        )
        lines.append(
            f"training    {NAMES.get(recipe['init'], recipe['init'])}; validation loss {fitted['start']:.3f} in closed "
            f"form, {fitted['best']:.3f} at the end ({took})"
        )
        lines += _score_lines(scores, self.classes)
        if (other := recipe.get("compared")) is not None:
            step = f"{other['difference']:+.3f}".replace("-", "−")
            lines.append(
                f"compare     test loss {scores['loss']:.3f}; of {NAMES['lin']}, trained alike, {other['loss']:.3f}; "
                f"difference {step} ± {other['standard_error']:.3f}"
            )
        return "\n".join(lines)


def _score_lines(scores: dict[str, Any], classes: tuple[str, ...]) -> list[str]:
    if not classes:
        return [
            f"test        misses {scores['loss']:.3f} of the targets' variance (0: nothing; 1: as good as their mean); "
            f"root mean square error {', '.join(f'{value:.4g}' for value in scores['rmse'])}"
        ]
    low, high = scores["interval"]
    lines = [
        f"test        loss {scores['loss']:.3f} nats ({scores['chance_loss']:.3f} by the classes' shares); accuracy "
        f"{100 * scores['accuracy']:.1f} % (95 % interval {100 * low:.0f} to {100 * high:.0f}; always the largest "
        f"class: {100 * scores['chance']:.0f} %); calibration error {scores['calibration']:.2f}"
    ]
    if len(classes) <= 12:
        width = max(6, *(len(name[:10]) for name in classes))
        lines.append("confusion   rows are true, columns predicted")
        lines.append(" " * 12 + " ".join(f"{name[:10]:>{width}}" for name in ("", *classes)))
        for name, row in zip(classes, scores["confusion"], strict=True):
            lines.append(" " * 12 + " ".join(f"{cell:>{width}}" for cell in (name[:10], *row)))
    return lines


def train(
    x: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    task: str = "auto",
    classes: Sequence[str] | None = None,
    init: str = "auto",
    compare: bool = False,
    d_model: int = 64,
    d_state: int = 32,
    n_layers: int = 1,
    max_steps: int = 300,
    seed: int = 0,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> Trained:
    """Train a model on samples of one's own and say how well it does on samples that it has not seen.

    Args:
        x: sequences (P, L) or (P, L, D), time before channels; shorter ones end in NaN.
        y: class labels (P,) or real targets, (P,) or (P, K): :func:`~tdi_lib.samples.understand_targets` tells which.
            Integers beside ``classes`` are their codes.
        groups: what each sample belongs to (P,). A group, copies of a sample, and windows that overlap are on one side
            of every split.
        test: sequences and targets of the test; else a fifth of the samples. A fifth of the rest chooses the weights.
        task, classes: as for :func:`~tdi_lib.samples.understand_targets`.
        init: ``auto`` lets the training samples choose among banks that are matched to them, flat ones, and S4D-Lin,
            which is kept unless another is clearly better; ``tdi`` matches the filters to the samples, ``flat``
            spreads them evenly, ``lin`` is S4D-Lin. The read-out is set in closed form in all cases.
        compare: also train from ``lin``, on the same samples, and score both.
        d_model, d_state, n_layers: size of the model.
        max_steps: optimizer steps at most.
        seed: of the splits, the initial values and the batches.
        progress: show a bar with the time left.
        checkpoint: file that the training's state is kept in; an interrupted call goes on from there when it is made
            again. It is removed at the end.

    Raises:
        TypeError, ValueError: naming the argument.
        FloatingPointError: if the training diverged.

    >>> from tdi_lib.data.synthetic import four_tones
    >>> x, y = four_tones(100, amplitude=0.8, generator=np.random.default_rng(0), length=64)
    >>> trained = train(x, y, d_model=16, d_state=16, max_steps=50, progress=False)
    >>> trained.recipe["scores"]["accuracy"] > 0.8, trained.predict(x[:3]).shape
    (True, (3,))
    """
    init = one_of("init", init, INITS)
    seed = positive_int("seed", seed, minimum=0)
    options = {"d_model": d_model, "d_state": d_state, "n_layers": n_layers}
    sets = _Sets.of(x, y, groups, test, task, classes, seed)
    if init == "auto":
        init, why = _chosen(sets, options, seed, progress)
        sets.notes.append(why)
    paths = [None if checkpoint is None else Path(f"{checkpoint}{end}") for end in ("", ".lin")]
    model, fitted = _trained(sets, init, options, max_steps, seed, progress, paths[0])
    recipe: dict[str, Any] = {
        "kind": KIND,
        "model": {"d_input": sets.d_input, "d_output": sets.d_output, **options, "pooling": "statistics"},
        "init": init,
        "seed": seed,
        "classes": list(sets.classes),
        "mean": sets.mean,
        "scale": sets.scale,
        "y_mean": sets.y_mean,
        "y_scale": sets.y_scale,
        "n": {name: len(index) for name, index in sets.parts.items()},
        "length": int(sets.x.shape[1]),
        "notes": sets.notes,
        "training": {
            "start": fitted.start_val_loss,
            "best": fitted.best_val_loss,
            "best_step": fitted.best_step,
            "steps": int(fitted.history[-1]["step"]),
            "seconds": fitted.seconds,
        },
    }
    losses, recipe["scores"] = _scores(model, sets)
    if compare:
        rival, _ = _trained(sets, "lin", options, max_steps, seed, progress, paths[1])
        others, scores = _scores(rival, sets)
        low, error = _mean(losses - others, sets.members("test"))
        recipe["compared"] = {"loss": scores["loss"], "difference": low, "standard_error": error, "scores": scores}
    for path in paths:
        if path is not None:
            path.unlink(missing_ok=True)
    return Trained(model, recipe)


# ---- the parts ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Sets:
    """All samples, standardized, and which of them train, choose and test."""

    x: np.ndarray
    y: np.ndarray
    lengths: np.ndarray | None
    groups: np.ndarray
    classes: tuple[str, ...]
    parts: dict[str, np.ndarray]
    mean: list[float]
    scale: list[float]
    y_mean: list[float]
    y_scale: list[float]
    notes: list[str]

    @property
    def d_input(self) -> int:
        return int(self.x.shape[2])

    @property
    def d_output(self) -> int:
        return len(self.classes) or int(self.y.shape[1])

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Sequences, targets and lengths."""
        index = self.parts[name]
        return self.x[index], self.y[index], None if self.lengths is None else self.lengths[index]

    def members(self, name: str) -> np.ndarray:
        return np.unique(self.groups[self.parts[name]], return_inverse=True)[1]

    @property
    def together(self) -> np.ndarray | None:
        """Groups of the training samples (P,), None where each stands alone."""
        members = self.members("training")
        return members if members.max() + 1 < len(members) else None

    def network(self, generator: torch.Generator, **options: Any) -> SequenceModel:
        """Filters, statistics over time, and a linear read-out; deeper branches begin at zero."""
        return SequenceModel(
            self.d_input, self.d_output, pooling="statistics", zero_branches=True, generator=generator, **options
        )

    @classmethod
    def of(
        cls,
        x: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None,
        test: tuple[ArrayLike, ArrayLike] | None,
        task: str,
        classes: Sequence[str] | None,
        seed: int,
    ) -> "_Sets":
        inputs = real_array("x", x, ndim=(2, 3), what=SEQUENCES, finite=False)
        inputs = inputs.reshape(*inputs.shape[:2], -1)
        targets, names, there = understand_targets(_named(y, classes), len(inputs), task=task, classes=classes)
        notes = [f"{int((~there).sum())} samples without a target left out"] if not there.all() else []
        members = None if groups is None else group_members(groups, len(inputs))[there]
        inputs = inputs[there]
        members, found = _belonging(inputs, targets, members)
        notes += found
        place = _split(targets, members, np.random.default_rng(seed), n_test=0 if test is not None else 1)
        if test is not None:
            more, y_more = _test_set(test, inputs.shape[2], task if not names else "classes", names or None)
            inputs, targets = _stacked(inputs, more), np.concatenate([targets, y_more])
            members = np.concatenate([members, members.max() + 1 + np.arange(len(more))])
            place = np.concatenate([place, np.full(len(more), "test")])
        ends = lengths_of(inputs)
        lengths = np.full(len(inputs), inputs.shape[1]) if ends is None else ends
        flat = (np.nanmax(inputs, axis=1) == np.nanmin(inputs, axis=1)).all(axis=1) | (lengths < MIN_LENGTH)
        if (out := flat & (place == "training")).any():
            notes.append(f"{out.sum()} constant or very short sequences are not trained on")
        parts = {name: np.flatnonzero((place == name) & ~out) for name in _LEAST}
        _refuse_small(parts, targets, names, groups is not None)
        learned = inputs[parts["training"]]
        mean, scale = np.nanmean(learned, axis=(0, 1)), np.nanstd(learned, axis=(0, 1))
        scale = np.where(scale > 0, scale, 1.0)
        y_mean, y_scale = np.zeros(1), np.ones(1)
        if not names:
            targets = targets.reshape(len(targets), -1)
            y_mean, y_scale = (f(targets[parts["training"]], axis=0) for f in (np.mean, np.std))
            if (y_scale == 0).any():
                raise ValueError("y must hold targets that differ, got constant ones")
            targets = (targets - y_mean) / y_scale
        return cls(
            (inputs - mean) / scale,
            targets,
            None if ends is None else lengths,
            members,
            names,
            parts,
            mean.tolist(),
            scale.tolist(),
            y_mean.tolist(),
            y_scale.tolist(),
            notes,
        )


def _belonging(inputs: np.ndarray, targets: np.ndarray, members: np.ndarray | None) -> tuple[np.ndarray, list[str]]:
    """Groups (P,) that also keep together copies and windows that overlap, and what is said of them."""
    notes: list[str] = []
    filled = np.nan_to_num(inputs)
    _, same = np.unique(filled.reshape(len(filled), -1), axis=0, return_inverse=True)
    same = same.ravel()
    if copies := len(same) - len(np.unique(same)):
        notes.append(f"{copies:,} exact copies of other samples, each on one side with its like")
    if members is None:
        found, _ = overlapping(filled, targets, notes)
        members = np.arange(len(inputs)) if found is None else found
    return joined(members, same), notes


def _split(targets: np.ndarray, groups: np.ndarray, generator: np.random.Generator, n_test: int) -> np.ndarray:
    """``training``, ``validation`` or ``test`` for every sample (P,), by groups that are dealt out in the order of
    their targets: every class and every range of values gets its share."""
    codes = np.unique(groups, return_inverse=True)[1]
    columns = np.eye(targets.max() + 1)[targets] if targets.dtype.kind == "i" else targets.reshape(len(targets), -1)
    sizes = np.bincount(codes)
    means = [np.bincount(codes, column) / sizes for column in columns.T]
    order = np.lexsort([generator.random(len(sizes)), *means])
    names = np.full(len(order), "training", dtype="U10")
    turn = int(generator.integers(_PARTS))
    names[order[(np.arange(len(order)) + turn) % _PARTS == 0]] = "validation"
    if n_test:
        names[order[(np.arange(len(order)) + turn) % _PARTS == 2]] = "test"
    alike = targets.dtype.kind != "i" or all((column > 0).all() for column in means)  # every group has every class
    if len(sizes) < 4 * _PARTS and alike:  # few groups may differ much in size: a fifth of the samples, about
        names[:] = "training"
        for name in ("validation", "test")[: 1 + n_test]:
            names[_about(np.flatnonzero(names == "training"), sizes, generator)] = name
    return names[codes]


def _about(free: np.ndarray, sizes: np.ndarray, generator: np.random.Generator) -> list[int]:
    """Some of the groups, drawn at random, that hold about a fifth of all samples; the smallest if all are larger."""
    chosen: list[int] = []
    goal = sizes.sum() / _PARTS
    for group in generator.permutation(free).tolist():
        total = int(sizes[chosen].sum())
        if total < 0.8 * goal and total + sizes[group] <= 1.4 * goal:
            chosen.append(group)
    return chosen or [int(free[sizes[free].argmin()])]


def _refuse_small(parts: dict[str, np.ndarray], targets: np.ndarray, names: tuple[str, ...], grouped: bool) -> None:
    what = " (groups are never split)" if grouped else ""
    for name, least in _LEAST.items():
        if len(parts[name]) < least:
            raise ValueError(f"x must leave at least {least} samples for {name}, got {len(parts[name])}{what}")
    if names:
        present = set(targets[parts["training"]].tolist())
        if absent := [each for code, each in enumerate(names) if code not in present]:
            raise ValueError(
                f"y must hold at least 3 samples of every class, or groups with it, got fewer of {absent[0]!r}"
            )


def _named(y: ArrayLike, classes: Sequence[str] | None) -> Any:
    """Names of classes that stand as codes, anything else as it is."""
    raw = as_array("y", y, "one target per sequence")
    if classes is None or raw.dtype.kind not in "iu" or not raw.size:
        return raw
    if raw.min() < 0 or raw.max() >= len(classes):
        raise ValueError(f"y must be codes of the {len(classes)} classes, got [{raw.min()}, {raw.max()}]")
    return np.array(classes)[raw]


def _test_set(
    test: tuple[ArrayLike, ArrayLike], n_channels: int, task: str, classes: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    x = real_array("test", test[0], ndim=(2, 3), what=SEQUENCES, finite=False)
    x = x.reshape(*x.shape[:2], -1)
    if x.shape[2] != n_channels:
        raise ValueError(f"test must have the {n_channels} channel(s) of x, got {x.shape[2]}")
    raw, known = _named(test[1], classes), classes is not None
    y, _, there = understand_targets(raw, len(x), task="auto" if known else task, classes=classes, name="test")
    return x[there], y


def _stacked(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sequences of both, the shorter ones ended by NaN."""
    length = max(first.shape[1], second.shape[1])
    pads = [np.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0)), constant_values=np.nan) for x in (first, second)]
    return np.concatenate(pads)


def _inputs(x: ArrayLike, mean: list[float], scale: list[float]) -> tuple[np.ndarray, np.ndarray | None]:
    inputs = real_array("x", x, ndim=(2, 3), what=SEQUENCES, finite=False)
    inputs = inputs.reshape(*inputs.shape[:2], -1)
    if inputs.shape[2] != len(mean):
        raise ValueError(f"x must have the {len(mean)} channel(s) that the model was trained on, got {inputs.shape[2]}")
    return (inputs - np.array(mean)) / np.array(scale), lengths_of(inputs)


def _chosen(sets: _Sets, options: dict[str, Any], seed: int, progress: bool) -> tuple[str, str]:
    """The bank that the training samples choose, and a line that says why."""
    x, y, lengths = sets.part("training")
    members = sets.members("training")
    alone = [code for code in range(len(sets.classes)) if len(np.unique(members[y == code])) < 2]
    if len(x) < 8 * _FOLDS or members.max() + 1 < _FOLDS or alone:
        return "lin", "too few samples or groups to choose an initialization by: S4D-Lin"
    small = options | {"d_model": min(options["d_model"], _CHANNELS), "n_layers": 1}
    starts = named_starts(functools.partial(sets.network, **small), seed=seed)
    choice = choose_start(
        {name: starts[name] for name in _CONSIDERED},
        x,
        y,
        groups=sets.together,
        lengths=lengths,
        folds=_FOLDS,
        seed=seed,
        progress=progress,
    )
    return ("lin" if choice.winner == "default" else choice.winner), f"initialization {choice.why}"


def _trained(
    sets: _Sets,
    init: str,
    options: dict[str, Any],
    max_steps: int,
    seed: int,
    progress: bool,
    checkpoint: Path | None,
) -> tuple[SequenceModel, FitResult]:
    """A model that begins in closed form, and what training its filters did."""
    generator = torch.Generator().manual_seed(seed)
    model = sets.network(generator, **options)
    x, y, lengths = sets.part("training")
    if init == "tdi":
        tdi_init_(model, x, y, lengths=lengths, generator=generator)
    elif init == "flat":
        flat_init_(model, x, lengths=lengths, generator=generator)
    elif init in _CONSIDERED:
        ends = () if lengths is None else (lengths,)
        starts = named_starts(functools.partial(sets.network, **options), seed=seed)
        model = starts[init](x, y, *ends)  # type: ignore[assignment]  # what the function makes
    ridge_readout_(model, x, y, groups=sets.together, lengths=lengths)
    model.decoder.requires_grad_(False)
    x_val, y_val, lengths_val = sets.part("validation")
    fitted = fit(
        model,
        x,
        y,
        x_val=x_val,
        y_val=y_val,
        lengths=lengths,
        lengths_val=lengths_val,
        max_steps=max_steps,
        evaluate_every=20,
        patience=5,
        seed=seed,
        progress=progress,
        checkpoint=checkpoint,
    )
    return model, fitted


def _scores(model: SequenceModel, sets: _Sets) -> tuple[np.ndarray, dict[str, Any]]:
    """Loss of every test sample (P,), and plain scores."""
    x, y, lengths = sets.part("test")
    raw = predict(model, x, lengths=lengths).double().numpy()
    groups = sets.members("test")
    if not sets.classes:
        misses = (raw - y) ** 2
        variance = np.maximum(((y - y.mean(axis=0)) ** 2).mean(axis=0), 1e-12)
        losses = (misses / variance).mean(axis=1)
        rmse = np.sqrt(misses.mean(axis=0)) * np.array(sets.y_scale)
        return losses, {"loss": float(losses.mean()), "rmse": rmse.tolist()}
    log_p = scipy.special.log_softmax(raw, axis=1)
    losses = -log_p[np.arange(len(y)), y]
    guess = raw.argmax(axis=1)
    confusion = np.zeros((len(sets.classes),) * 2, dtype=int)
    np.add.at(confusion, (y, guess), 1)
    shares = np.bincount(sets.y[sets.parts["training"]], minlength=len(sets.classes)) / len(sets.parts["training"])
    right = (guess == y).astype(float)
    confidence = np.exp(log_p.max(axis=1))
    gap = np.bincount(np.minimum((10 * confidence).astype(int), 9), right - confidence)
    return losses, {
        "loss": float(losses.mean()),
        "chance_loss": float(-np.log(shares[y]).mean()),
        "accuracy": float(right.mean()),
        "chance": float((y == shares.argmax()).mean()),
        "interval": list(interval(right, groups)),
        "calibration": float(np.abs(gap).sum() / len(y)),
        "confusion": confusion.tolist(),
    }


def _mean(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """A mean and its standard error, groups taken as one draw each."""
    off = np.bincount(groups, values - values.mean())
    return float(values.mean()), float(math.sqrt(len(off) / max(len(off) - 1, 1) * (off**2).sum()) / len(values))


def interval(right: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, for as many samples as independent ones that are as uncertain.

    >>> low, high = interval(np.array([1.0] * 8 + [0.0] * 2), np.arange(10))
    >>> round(low, 2), round(high, 2)
    (0.49, 0.94)
    """
    n_groups = int(groups.max()) + 1
    share, error = _mean(right, groups)
    n = float(n_groups)
    if n_groups < len(right) and error > 0:
        n = min(max(share * (1 - share) / error**2, 1.0), float(len(right)))
    z = 1.96
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
