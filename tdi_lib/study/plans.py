"""Which runs: one training run as a plain configuration, and the recorded studies as lists of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

__all__ = [
    "CLOSED_FORM_NAMES",
    "CLOSED_FORM_SIZES",
    "DEEP_MIDDLE",
    "DEEP_NAMES",
    "DEEP_SIZES",
    "DEVELOPMENT",
    "INITS",
    "STUDIES",
    "TOGETHER",
    "UNTRAINED",
    "Trial",
    "closed_form_trials",
    "deep_trials",
]

BANKS: dict[str, dict[str, Any]] = {
    "flat": {"method": "flat"},
    "tdi": {},
    "cross": {"method": "cross"},
    "guarded": {"guard": True},
    "half": {"share": 0.5},
    "flat-half": {"method": "flat", "share": 0.5},
}
INITS = ("lin", "inv", "legs", "real", "random", "dfout", "scaled", "acf", *BANKS)
"""What a trial can start from: named initializations (``scaled``: S4D-Lin with frequencies times 3; ``random``:
:func:`~tdi_lib.ssm.poles_random`, from a generator of its own, so that all else is as with S4D-Lin); ``acf``, S4D-Lin
with steps from :func:`~tdi_lib.study.trial.autocorrelation_steps`; the ``flat`` bank; ours, ``tdi``, and ``guarded``,
which is ours where the samples say that it helps and S4D-Lin elsewhere; the paper's, ``cross``; ``half`` and
``flat-half``: every second channel of the first layer from ours, or from the flat bank, the others S4D-Lin's."""


UNTRAINED: dict[str, dict[str, Any] | None] = {
    "lin": None,
    "flat": {"method": "flat", "resolutions": "auto"},
    **{f"flat-{decay}": {"method": "flat", "resolutions": [decay]} for decay in (0.2, 0.05, 0.02, 0.008)},
    "tdi": {},
    "cross": {"method": "cross"},
    "scalogram": {"resolutions": "auto"},
    "convolutions": None,
    "bands": None,
}
"""What a trial with a closed-form read-out can start from: S4D-Lin; flat banks, which see no label, of mixed decays and
of one decay per sample; filters matched to the labels at the book's one decay (``tdi``), by the paper's cross-spectrum,
and at the decays of the task's scalogram; and two rivals without filters of a state space model:
random convolutions, and log-powers of the sequence's periodogram in bands."""


@dataclasses.dataclass(frozen=True, order=True)
class Trial:
    """One training run. Two trials that differ only in ``init`` share data, batches and every other initial value.

    Attributes:
        dataset: a name of :func:`tdi_lib.data.sets.available`.
        n: training examples, the validation part included.
        seed: of the subset, the initial values and the order of batches.
        init: one of :data:`INITS`, or with a ``ridge`` read-out of :data:`UNTRAINED`.
        d_model: see :class:`~tdi_lib.ssm.SequenceModel` for this and the next two.
        d_state: full state size.
        n_layers: depth.
        max_steps: see :func:`~tdi_lib.training.fit` for this and the next three.
        patience: validations without improvement before stopping.
        batch_size: samples per step.
        lr: learning rate of all but the poles.
        layers: which layers are matched, see :func:`~tdi_lib.tdi.tdi_init_`; ``first`` unless ``init`` is a bank.
        dt_min: least of the steps, see :class:`~tdi_lib.ssm.DiagonalSSM`. Of ``acf`` only ``dt_max / dt_min`` counts.
        dt_max: largest of them.
        pretrain_steps: before the training, learn for at most so many steps to predict every next value of the same
            training sequences (self-pretraining, arXiv 2310.02980); everything but the decoder is kept.
    """

    dataset: str
    n: int
    seed: int
    init: str
    d_model: int = 32
    d_state: int = 32
    n_layers: int = 2
    max_steps: int = 400
    patience: int = 16
    batch_size: int = 32
    lr: float = 5e-3
    layers: str = "first"
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    pretrain_steps: int = 0
    readout: str = "gradient"


TOGETHER = ("dataset", "d_model", "d_state", "n_layers", "max_steps", "patience", "batch_size", "lr")
"""What trials must have in common to be trained at once."""

DEEP_SIZES = {
    "activities": (50, 200, 800, 7415),
    "chlorine": (50, 200, 467),
    "cricketx": (50, 200, 390),
    "ecg5000": (50, 200, 500),
    "electric": (50, 200, 800, 8926),
    "forda": (50, 200, 800, 3601),
    "freezer": (50, 150),
    "watch": (50, 200, 1328),
}
"""Data sets and numbers of examples of the deep study; the last number is all there are."""


DEEP_NAMES = {
    "activities": "activities",
    "chlorine": "Chlorine",
    "cricketx": "CricketX",
    "ecg5000": "ECG5000",
    "electric": "ElectricDevices",
    "forda": "FordA",
    "freezer": "Freezer",
    "watch": "watch",
}
"""What the book calls them."""

DEEP_MIDDLE = {dataset: sizes[-1] if len(sizes) < 3 else sizes[1] for dataset, sizes in DEEP_SIZES.items()}
"""The one number of examples at which everything is compared: 200, or all where there are fewer."""

_OTHERS = ("cross", "flat", "inv", "legs", "real", "random", "dfout", "scaled", "acf")
_DEEPER = ("2", "3", "4", "all", "composite", "each")  # layers to match, other than the first


def deep_trials(
    seeds: Sequence[int], start_seeds: Sequence[int], rest_seeds: Sequence[int], *, everywhere: bool = False
) -> list[Trial]:
    """The deep study: few to all examples of eight real sets from S4D-Lin, from a matched layer and from a half of one;
    and at one middling size every other start, a grid of steps, self-pretraining, and the choice of layers. Training
    ends after 400 steps, on more than a thousand examples after 1,000; where that may be too soon, also after 3,000.

    Args:
        seeds: of the comparison over sizes.
        start_seeds: of the other starts.
        rest_seeds: of everything else.
        everywhere: compare every start at every size, 100 and 300 included: five sizes or more, but for Freezer.
    """
    more = (100, 300) if everywhere else ()
    sizes = [(name, n) for name, known in DEEP_SIZES.items() for n in sorted({*known, *more}) if n <= known[-1]]
    # 800 is else a point of the default's curve only, but for FordA
    compared = [(name, n) for name, n in sizes if n != 800 or name == "forda" or everywhere]
    middle = list(DEEP_MIDDLE.items())
    longer = [*middle, *((name, n) for name, n in sizes if n > 1000)]
    deeper = [(name, 200) for name in ("activities", "ecg5000", "forda", "watch")]
    steps = [(low, high) for low in (1e-4, 1e-3, 1e-2) for high in (1e-2, 1e-1, 1.0) if low < high]
    live = ((0,), [("ecg5000", 50)])  # slices that notebooks train and compare
    short = {"max_steps": 50, "patience": Trial.patience}
    table: list[tuple[Sequence[int], list[tuple[str, int]], tuple[str, ...], dict[str, Any]]] = [
        (*live, ("half",), short),
        (*live, ("tdi",), short | {"n_layers": 4, "layers": "each"}),
        (*live, ("lin",), short | {"pretrain_steps": 50}),
        (seeds, sizes, ("lin",), {}),
        (seeds, compared, ("tdi", "half"), {}),
        (seeds if everywhere else (), compared, _OTHERS, {}),
        (start_seeds, middle, _OTHERS, {}),
        *((rest_seeds, middle, ("lin",), {"dt_min": low, "dt_max": high}) for low, high in steps),
        (rest_seeds, middle, ("lin",), {"pretrain_steps": 400}),
        (rest_seeds, longer, ("lin", "tdi", "half"), {"max_steps": 3000}),
        (rest_seeds, deeper, ("lin", "tdi"), {"n_layers": 4}),
        *((rest_seeds, deeper, ("tdi",), {"n_layers": 4, "layers": layers}) for layers in _DEEPER),
    ]
    trials = [
        Trial(name, n, seed, init, **({"max_steps": 400 if n <= 1000 else 1000, "patience": 10} | options))
        for some_seeds, cells, inits, options in table
        for seed in some_seeds
        for name, n in cells
        for init in inits
    ]
    return list(dict.fromkeys(trials))


CLOSED_FORM_SIZES = {
    "activities-persons": (50, 200),
    "cricketx": (50, 200),
    "ecg5000": (50, 200),
    "ecgtorso": (50, 200),
    "electric": (50, 200),
    "ethanol": (50, 200),
    "forda": (50, 200),
    "fordb": (50, 200),
    "fordb-heldout": (50, 200),
    "freezer": (50, 150),
    "inlineskate": (50, 100),
    "insectepg": (50, 62),
    "japanesevowels": (50, 200),
    "notes": (50, 200),
    "octave": (50, 91),
    "osuleaf": (50, 200),
    "register": (50, 200),
    "speech": (50, 200),
    "vowels": (50, 200),
    "watch-persons": (50, 200),
    "wingbeat": (50, 200),
}
"""Data sets and numbers of examples of the closed-form study, 50, and 200 or all there are. PigArtPressure is not among
them, for with two examples of each of 52 classes nothing can be left out."""

DEVELOPMENT = ("activities-persons", "ecg5000", "forda", "octave")
"""Data sets on which constants were chosen or prototypes made; all others are judged."""

CLOSED_FORM_NAMES = {
    **{name: DEEP_NAMES[name.removesuffix("-persons")] for name in ("activities-persons", "watch-persons")},
    **{name: DEEP_NAMES[name] for name in ("cricketx", "ecg5000", "electric", "forda", "freezer")},
    "ecgtorso": "CinCECGTorso",
    "ethanol": "EthanolLevel",
    "fordb": "FordB",
    "fordb-heldout": "FordB, its training part alone",
    "inlineskate": "InlineSkate",
    "insectepg": "InsectEPG",
    "japanesevowels": "JapaneseVowels",
    "notes": "notes: pitch class",
    "octave": "notes: within an octave",
    "osuleaf": "OSULeaf",
    "register": "notes: register",
    "speech": "speech prompts",
    "vowels": "vowels",
    "wingbeat": "InsectWingbeat",
}
"""What the book calls them."""


def closed_form_trials(seeds: Sequence[int]) -> list[Trial]:
    """The closed-form study: every start of :data:`UNTRAINED` on spectral sets, others and controls, untrained."""
    return [
        Trial(name, n, seed, init, d_model=128, n_layers=1, max_steps=0, readout="ridge")
        for seed in seeds
        for name, sizes in CLOSED_FORM_SIZES.items()
        for n in sizes
        for init in UNTRAINED
    ]


STUDIES: dict[str, list[Trial]] = {
    "closed_form": closed_form_trials(range(3)),  # so far; ten seeds are planned
    "deep": deep_trials(range(10), range(2), range(1)),
    "deep-gpu": deep_trials(range(10), range(10), range(10), everywhere=True),  # not recorded yet: hours on a GPU
    # nothing is trained: what can be said beforehand; half of 40 gestures of 12 kinds are too few to say anything
    "forecasts": [
        t
        for t in deep_trials(range(10), [], [])
        if t.init == "lin" and t.max_steps >= 400 and t.n != 800 and (t.dataset, t.n) != ("cricketx", 50)
    ],
    "low_data": [
        Trial(dataset, n, seed, init)
        for dataset, seeds in (("forda", 5), ("mnist5k", 3))
        for n in (50, 200, 800)
        for seed in range(seeds)
        for init in ("lin", "flat", "tdi")
    ]
    # the slice that the notebook trains live and compares
    + [Trial("forda", 50, 0, init, max_steps=50) for init in ("lin", "tdi")],
    "tones": [
        Trial(f"tones-{percent}", 160, seed, init, max_steps=300)  # 128 to train on, 32 to choose the step
        for percent, inits in (
            (25, ("lin", "inv", "legs", "dfout", "flat", "tdi", "cross")),
            (22, ("lin", "flat", "tdi")),
            (20, ("lin", "flat", "tdi")),
        )
        for seed in range(5)
        for init in inits
    ],
}
"""The recorded studies; ``python -m tdi_lib.study.sweep NAME FILE`` records one, or what is missing of it.

:meta hide-value:
"""


DEFAULTS = {field.name: field.default for field in dataclasses.fields(Trial)}
FIELDS = list(DEFAULTS)


def trial_of(row: dict[str, Any]) -> Trial:
    return Trial(**{name: row[name] for name in FIELDS})
