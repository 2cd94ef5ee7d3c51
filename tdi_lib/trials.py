"""Trials: one training run as a plain configuration, its record as a row, and a study as a table of rows.

A study is recorded once (minutes to hours) under ``results/`` with its provenance; notebooks replay it and retrain a
small slice. Running it again runs only what is missing.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tdi_lib import _checks, datasets
from tdi_lib.matching import spectral_loss, tdi_init_
from tdi_lib.model import SequenceModel
from tdi_lib.spectrum import estimate_task_spectrum
from tdi_lib.store import Store
from tdi_lib.sweep import SweepReport, sweep
from tdi_lib.training import evaluate, fit

__all__ = [
    "INITS",
    "STUDIES",
    "Trial",
    "find_trial",
    "provenance",
    "read_study",
    "record_study",
    "run_config",
    "run_trial",
]

INITS = ("lin", "inv", "legs", "dfout", "flat", "tdi", "cross")
"""What a trial can start from: named initialisations, the ``flat`` bank, ours (``tdi``), the paper's (``cross``)."""


@dataclasses.dataclass(frozen=True, order=True)
class Trial:
    """One training run. Two trials that differ only in ``init`` share data, batches and every other initial value.

    Attributes:
        dataset: a name of :func:`tdi_lib.datasets.available`.
        n: training examples, the validation part included.
        seed: of the subset, the initial values and the order of batches.
        init: one of :data:`INITS`.
        d_model: see :class:`~tdi_lib.model.SequenceModel` for this and the next two.
        d_state: full state size.
        n_layers: depth.
        max_steps: see :func:`~tdi_lib.training.fit` for this and the rest.
        patience: validations without improvement before stopping.
        batch_size: samples per step.
        lr: learning rate of all but the poles.
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


STUDIES: dict[str, list[Trial]] = {
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
        for percent, inits in ((25, INITS), (22, ("lin", "flat", "tdi")), (20, ("lin", "flat", "tdi")))
        for seed in range(5)
        for init in inits
    ],
}
"""The recorded studies; ``python -m tdi_lib.trials NAME FILE`` records one, or what is missing of it."""


def run_trial(trial: Trial, *, progress: bool = False) -> dict[str, Any]:
    """Train and score one trial; returns its row.

    Besides the configuration: test ``loss`` (nats), ``accuracy`` and ``calibration``, ``best_step``, ``steps``,
    ``seconds`` of the training and ``init_seconds`` of estimate and match; the order of task that was found
    (``method``); the first layer's spectral loss to the task's spectrum when training starts and when it has ended
    (``spectral_start``, ``spectral_end``).
    """
    _checks.choice("trial.init", trial.init, INITS)
    data = datasets.load(trial.dataset, progress=progress)
    part = data.subset(trial.n, seed=trial.seed)
    # the scale of the data from the training part alone
    mean, scale = part.x.mean(axis=(0, 1)), part.x.std(axis=(0, 1))
    x, x_val, x_test = ((a - mean) / scale for a in (part.x, part.x_val, data.x_test))

    generator = torch.Generator().manual_seed(trial.seed)
    bank = trial.init in ("flat", "tdi", "cross")
    model = SequenceModel(
        data.d_input,
        data.n_classes,
        d_model=trial.d_model,
        d_state=trial.d_state,
        n_layers=trial.n_layers,
        init="lin" if bank else trial.init,
        generator=generator,
    )
    first = model.ssms[0]
    init_seconds = 0.0
    if bank:
        method = "auto" if trial.init == "tdi" else trial.init
        init_seconds = tdi_init_(model, x, part.y, method=method, generator=generator).seconds
    task = estimate_task_spectrum(x, part.y)  # the yardstick of every init, whatever it started from
    start = spectral_loss(first, task)
    result = fit(
        model,
        x,
        part.y,
        x_val=x_val,
        y_val=part.y_val,
        max_steps=trial.max_steps,
        patience=trial.patience,
        batch_size=trial.batch_size,
        lr=trial.lr,
        seed=trial.seed,
        progress=progress,
        device="cpu" if not torch.cuda.is_available() else "gpu",
    )
    scores = evaluate(model, x_test, data.y_test)
    return dataclasses.asdict(trial) | {
        "loss": scores.loss,
        "accuracy": scores.accuracy,
        "calibration": scores.calibration,
        "best_step": result.best_step,
        "steps": result.history[-1]["step"],
        "seconds": result.seconds,
        "init_seconds": init_seconds,
        "method": task.method,
        "spectral_start": start,
        "spectral_end": spectral_loss(first, task),
    }


def provenance() -> dict[str, str]:
    """Where a result comes from: commit (marked ``-dirty`` if any tracked file was changed), versions, device."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "commit": commit or "unknown",
        "device": gpu or f"{platform.machine()} CPU, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "scipy")},
    }


def record_study(
    trials: Iterable[Trial],
    path: str | Path,
    *,
    folder: str | Path | None = None,
    scheduler: str | None = None,
    n_workers: int | None = None,
    progress: bool = True,
) -> SweepReport:
    """Run the trials that ``path`` (Parquet) does not hold yet, and write it anew with their rows.

    The trials run as a :func:`~tdi_lib.sweep.sweep`; its records lie in ``folder`` until the end, so a study that was
    interrupted, in whatever way, goes on where it was when it is started again. Rows carry :func:`provenance`.

    Args:
        trials: the study.
        path: the recorded study; trials that it holds are not run again.
        folder: of the sweep's store; ``_build/sweeps`` and the file's name if omitted.
        scheduler, n_workers, progress: as for :func:`~tdi_lib.sweep.sweep`.
    """
    path = Path(path)
    store = Store(Path("_build", "sweeps", path.stem) if folder is None else folder)
    for row in read_study(path).to_dict("records") if path.exists() else []:
        config = {name: row.pop(name) for name in _FIELDS}
        if config not in store:
            store.put(config, {str(name): value for name, value in row.items()})
    configs = [dataclasses.asdict(trial) for trial in sorted(set(trials))]
    report = sweep(run_config, configs, store.folder, scheduler=scheduler, n_workers=n_workers, progress=progress)
    _write(pd.DataFrame(store.records()), path)
    return report


def run_config(config: dict[str, Any]) -> dict[str, Any]:
    """:func:`run_trial` in plain values: what it adds to a configuration, and where that comes from."""
    row = run_trial(Trial(**config))
    return {name: value for name, value in row.items() if name not in config} | {"provenance": json.dumps(provenance())}


def read_study(path: str | Path) -> pd.DataFrame:
    """The recorded rows of a study, sorted by configuration."""
    return pd.read_parquet(path).sort_values(_FIELDS, ignore_index=True)


def find_trial(table: pd.DataFrame, trial: Trial) -> dict[str, Any]:
    """The recorded row of one trial.

    Raises:
        KeyError: if the table does not hold it.
    """
    for row in table.to_dict("records"):
        if _trial_of(row) == trial:
            return {str(name): value for name, value in row.items()}
    raise KeyError(f"{trial} is not among the {len(table)} recorded trials")


_FIELDS = [field.name for field in dataclasses.fields(Trial)]


def _trial_of(row: dict[str, Any]) -> Trial:
    return Trial(**{name: row[name] for name in _FIELDS})


def _write(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    table.sort_values(_FIELDS, ignore_index=True).to_parquet(temporary, index=False)
    os.replace(temporary, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Record a study, or what is missing of it.")
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("file", type=Path, help="Parquet file, for example results/low_data.parquet")
    parser.add_argument("--scheduler", help="address of a running Dask scheduler; a local cluster if omitted")
    parser.add_argument("--workers", type=int, help="processes of the local cluster, one thread each")
    arguments = parser.parse_args()
    outcome = record_study(
        STUDIES[arguments.study], arguments.file, scheduler=arguments.scheduler, n_workers=arguments.workers
    )
    for error in outcome.failed.values():
        print(error, file=sys.stderr)
    sys.exit(bool(outcome.failed))
