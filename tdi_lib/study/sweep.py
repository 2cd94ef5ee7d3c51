"""Run and record: a function over many configurations with Dask, and the studies that are recorded this way.

The workers write their records into a :class:`~tdi_lib.records.Store` themselves. So the driver may die, and the
workers too: start the sweep again and it goes on with what is missing. Which machines take part is Dask's affair: pass
the address of a scheduler that runs already (on Slurm, Kubernetes, machines reached by SSH), or none for a local
cluster.

A study is recorded once (minutes to hours) under ``results/`` with its provenance; notebooks replay it and retrain a
small slice. Running it again runs only what is missing.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from tdi_lib.records import Store, config_key
from tdi_lib.samples import one_of, positive_int

if TYPE_CHECKING:
    from distributed import Client
import argparse
import functools
import json
import sys
import warnings
from collections.abc import Sequence

import pandas as pd
import pyarrow
import pyarrow.parquet

from tdi_lib.records import provenance
from tdi_lib.study.analysis import complete, read_rows, read_study
from tdi_lib.study.closed_form import run_closed_form
from tdi_lib.study.plans import FIELDS, STUDIES, TOGETHER, Trial, trial_of
from tdi_lib.study.trial import forecast_trial, run_trial, run_trials

__all__ = ["SweepReport", "forecast_config", "record_study", "replay", "run_config", "run_configs", "sweep"]

# ---- a function over many configurations ---------------------------------------------------------


Config = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SweepReport:
    """What a sweep did.

    Attributes:
        done: how many configurations it ran and recorded.
        already: how many were recorded before, are being run by another sweep, or were recorded by a worker that died
            before it could say so.
        failed: the errors, by configuration key; with their configurations they lie in the store's folder ``failed``.
        seconds: wall time.
    """

    done: int
    already: int
    failed: dict[str, str]
    seconds: float


def sweep(
    function: Callable[[Any], Any],
    configs: Iterable[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    *,
    batch: Callable[[list[Config]], Iterable[list[Config]]] | None = None,
    scheduler: str | None = None,
    n_workers: int | None = None,
    progress: bool = True,
) -> SweepReport:
    """Call ``function(config)`` for every configuration that the store lacks, and record what it returns.

    Args:
        function: importable where the workers run; returns a mapping of JSON values. Dask gives it one thread.
        configs: mappings of JSON values; repeated ones run once.
        folder: of the :class:`~tdi_lib.records.Store`, seen by all workers.
        batch: sorts the missing configurations into lists of those that run at once. The function then gets such a
            list, or what other sweeps left of it, and returns one result for each, which may be an exception. Every
            result is a record of its own.
        scheduler: address of a running Dask scheduler, such as ``tcp://node7:8786``; a local cluster if omitted.
        n_workers: processes of the local cluster; by default one per core. 0 runs everything in this process, one
            after another, and needs no Dask.
        progress: show a bar with an estimate of the time left.

    A configuration that raises is noted under ``failed`` with its traceback and does not stop the rest; so is one over
    which four workers have died. The next sweep tries both again.

    Raises:
        TypeError, ValueError: naming the argument.
        OSError: if the scheduler does not answer.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> sweep(lambda c: {"root": c["n"] ** 0.5}, [{"n": 4}, {"n": 9}], folder, n_workers=0, progress=False).done
    2
    >>> Store(folder).get({"n": 9})
    {'n': 9, 'root': 3.0}
    """
    if not callable(function):
        raise TypeError(f"function must be callable, got {type(function).__name__}")
    if n_workers is not None:
        if not isinstance(n_workers, int) or n_workers < 0:
            raise ValueError(f"n_workers must be an integer of at least 0, got {n_workers!r}")
        if scheduler is not None:
            raise ValueError("n_workers must be left out with a scheduler, which has its own workers")
    start = time.perf_counter()
    store, failures = Store(folder), Store(Path(folder) / "failed")
    unique = {config_key(config): dict(config) for config in configs}
    if any("error" in config for config in unique.values()):
        raise ValueError("configs must not have an entry of the name error, under which failures are noted")
    missing = {key: config for key, config in unique.items() if config not in store}
    for key in unique.keys() - missing.keys():
        failures.discard(unique[key])  # of a worker that succeeded later, and whose driver did not live to hear of it
    parts = _parts(batch, missing)
    run = _Run(function, batch is not None, str(store.folder.resolve()))
    counts = {"done": 0, "already": len(unique) - len(missing)}
    failed: dict[str, str] = {}
    with tqdm(total=len(unique), initial=counts["already"], unit="trial", disable=not progress, smoothing=0.05) as bar:
        outcomes = map(run, parts) if n_workers == 0 else _on_dask(run, parts, scheduler, n_workers)
        for key, outcome in itertools.chain.from_iterable(outcomes):
            failures.discard(missing[key])
            if outcome in counts:
                counts[outcome] += 1
            else:
                failed[key] = outcome
                failures.put(missing[key], {"error": outcome})
            bar.update()
            bar.set_postfix(failed=len(failed), refresh=False)
    return SweepReport(counts["done"], counts["already"], failed, time.perf_counter() - start)


def _parts(
    batch: Callable[[list[Config]], Iterable[list[Config]]] | None, missing: dict[str, Config]
) -> list[list[Config]]:
    if batch is None:
        return [[config] for config in missing.values()]
    parts = [list(part) for part in batch(list(missing.values())) if part]
    if sorted(config_key(config) for part in parts for config in part) != sorted(missing):
        raise ValueError(f"batch must return every one of the {len(missing)} configurations once")
    return parts


@dataclasses.dataclass(frozen=True)
class _Run:
    """On a worker: run some configurations, but for those that somebody has run, or runs."""

    function: Callable[[Any], Any]
    batched: bool
    folder: str

    def __call__(self, part: list[Config]) -> list[tuple[str, str]]:
        """``done``, ``already`` or the text of an error for each, beside its key."""
        store = Store(self.folder)
        with contextlib.ExitStack() as claims:
            mine = [c for c in part if claims.enter_context(store.claim(c)) and c not in store]
            outcome = {config_key(config): "already" for config in part}
            try:
                results = ([] if not mine else self.function(mine)) if self.batched else map(self.function, mine)
                for config, result in zip(mine, results, strict=True):
                    outcome[config_key(config)] = self._record(store, config, result)
            except Exception:
                text = traceback.format_exc().strip()
                outcome |= {config_key(c): text for c in mine if outcome[config_key(c)] == "already"}
        return list(outcome.items())

    @staticmethod
    def _record(store: Store, config: Config, result: Any) -> str:
        if isinstance(result, Exception):
            return "".join(traceback.format_exception(result)).strip()
        try:
            if not isinstance(result, Mapping):
                raise TypeError(f"result must be a mapping, got {type(result).__name__}")
            store.put(config, result)
        except (TypeError, ValueError):
            return traceback.format_exc().strip()
        return "done"


def _on_dask(
    run: _Run, parts: list[list[Config]], scheduler: str | None, n_workers: int | None
) -> Iterator[list[tuple[str, str]]]:
    """Outcomes in the order in which they come; a part over which workers died fails as a whole."""
    if not parts:
        return
    from distributed import as_completed  # slow to import, and only needed here

    with _client(scheduler, n_workers, len(parts)) as client:
        # one group of keys: the scheduler then holds back what no worker is free for, see worker-saturation below
        name = f"trials-{uuid.uuid4().hex}"
        mapped = client.map(run, parts, key=[(name, index) for index in range(len(parts))], pure=False)
        futures = dict(zip(mapped, parts, strict=True))
        del mapped
        for future in as_completed(list(futures), loop=client.loop):
            part, error = futures.pop(future), future.exception()
            if error is None:
                yield future.result()
            else:
                text = "".join(traceback.format_exception(error)).strip()
                yield [(config_key(config), text) for config in part]


@contextlib.contextmanager
def _client(scheduler: str | None, n_workers: int | None, n_tasks: int) -> "Iterator[Client]":
    """The scheduler's client, or that of a local cluster, which is taken down afterwards."""
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        with Client(scheduler, set_as_default=False) as client:
            yield client
        return
    with (
        # A worker holds one task at a time: its death is then blamed on what it ran and not on what waited for it.
        dask.config.set({"distributed.scheduler.worker-saturation": 1.0}),
        LocalCluster(
            n_workers=max(1, min(n_workers or os.cpu_count() or 1, n_tasks)),
            threads_per_worker=1,
            memory_limit=0,  # a trial that needs more than its share must not be paused for it
            dashboard_address="127.0.0.1:0",  # None would be a fixed port, and a second sweep would complain
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


# ---- a study -------------------------------------------------------------------------------------


def record_study(
    trials: Iterable[Trial],
    path: str | Path,
    *,
    folder: str | Path | None = None,
    together: int = 1,
    scheduler: str | None = None,
    n_workers: int | None = None,
    progress: bool = True,
    function: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """Run the trials that ``path`` (Parquet) does not hold yet, write it anew with their rows, and return them all.

    The trials run as a :func:`sweep`; its records lie in ``folder`` until the end, so a study that was
    interrupted, in whatever way, goes on where it was when it is started again. Rows carry
    :func:`~tdi_lib.records.provenance`. A trial that fails is missing in the table; a warning says so, and the folder
    ``failed`` why.

    Args:
        trials: the study.
        path: the recorded study; trials that it holds are not run again.
        folder: of the sweep's store; ``_build/sweeps`` and the file's name if omitted.
        together: how many trials are trained at once on a worker, at most
            (:func:`~tdi_lib.study.trial.run_trials`); for a GPU.
        scheduler, n_workers, progress: as for :func:`sweep`.
        function: what is done with a configuration: :func:`run_config`, or :func:`forecast_config`.

    Raises:
        ValueError: if a ``function`` is given and ``together`` is not 1; if ``path`` and ``folder`` hold two different
            records of a trial.
        RuntimeError: if there is not one row to write.
    """
    path, together = Path(path), positive_int("together", together)
    if function is not None and together > 1:
        raise ValueError(f"together must be 1 with a function of one configuration, got {together}")
    store = Store(Path("_build", "sweeps", path.stem) if folder is None else folder)
    for row in read_rows(path) if path.exists() else []:
        config = {name: row[name] for name in FIELDS}
        if config not in store:
            store.put(config, {str(name): value for name, value in row.items() if name not in config})
        elif store.get(config)["provenance"] != row["provenance"]:
            raise ValueError(
                f"folder must not hold another record of a trial than {path}, but {store.folder} does, of {config}: "
                "one of the two is stale; remove it"
            )
    report = sweep(
        function or (run_config if together == 1 else run_configs),
        [dataclasses.asdict(trial) for trial in sorted(set(trials), key=lambda t: (t.seed, t))],  # whole seeds first
        store.folder,
        batch=None if together == 1 else functools.partial(_batches, together),
        scheduler=scheduler,
        n_workers=n_workers,
        progress=progress,
    )
    if report.failed:
        warnings.warn(f"{len(report.failed)} trials failed, see {store.folder / 'failed'}", stacklevel=2)
    rows = sorted(store.records(), key=trial_of)
    if not rows:
        raise RuntimeError(f"trials must not all fail, but none of {len(report.failed)} left a row")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.part")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(complete(rows)), temporary)
    os.replace(temporary, path)
    return read_study(path)


def run_config(config: dict[str, Any]) -> dict[str, Any]:
    """What a run adds to a configuration, and where it comes from, in plain values.

    It is :func:`~tdi_lib.study.trial.run_trial`, or with a ``ridge`` read-out
    :func:`~tdi_lib.study.closed_form.run_closed_form`.
    """
    origin, trial = provenance(), Trial(**config)
    return _measured(config, run_closed_form(trial) if trial.readout == "ridge" else run_trial(trial), origin)


def forecast_config(config: dict[str, Any]) -> dict[str, Any]:
    """:func:`~tdi_lib.study.trial.forecast_trial` in plain values."""
    origin = provenance()
    return _measured(config, forecast_trial(Trial(**config)), origin)


def run_configs(configs: list[dict[str, Any]]) -> list[dict[str, Any] | Exception]:
    """:func:`~tdi_lib.study.trial.run_trials` in plain values."""
    origin = provenance()
    rows = run_trials([Trial(**config) for config in configs])
    return [
        row if isinstance(row, Exception) else _measured(config, row, origin)
        for config, row in zip(configs, rows, strict=True)
    ]


_FUNCTIONS = {"forecasts": forecast_config}  # what else than training a study does with its trials


def replay(study: str, profile: str = "book", *, results: str | Path = "../results") -> pd.DataFrame:
    """The rows of a study that a notebook stands on: those recorded, or at profile ``full`` all run anew.

    Args:
        study: one of :data:`~tdi_lib.study.plans.STUDIES`.
        profile: of the notebook. ``full`` writes to ``_build/full`` beside ``results`` and, like any study, goes on
            where it was interrupted.
        results: where the recorded studies lie. ``deep-gpu.parquet``, which holds all that ``deep`` does, goes before
            it once there is one.

    Raises:
        ValueError: for an unknown study.
    """
    one_of("study", study, tuple(STUDIES))
    if profile == "full":
        build = Path(results).parent / "_build" / "full"
        return record_study(
            STUDIES[study], build / f"{study}.parquet", folder=build / "sweeps" / study, function=_FUNCTIONS.get(study)
        )
    wider = Path(results, f"{study}-gpu.parquet")
    return read_study(wider if wider.exists() else Path(results, f"{study}.parquet"))


def _measured(config: dict[str, Any], row: dict[str, Any], origin: dict[str, str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in config} | {"provenance": json.dumps(origin)}


def _batches(size: int, configs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Lists of at most ``size`` trials that can be trained at once, of like sizes of data."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for config in sorted(configs, key=lambda config: config["n"]):
        groups.setdefault(tuple(config[name] for name in TOGETHER), []).append(config)
    return [group[first : first + size] for group in groups.values() for first in range(0, len(group), size)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Record a study from the command line; 0 if nothing of it is missing at the end."""
    parser = argparse.ArgumentParser(description="Record a study, or what is missing of it.")
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("file", type=Path, help="Parquet file, for example results/low_data.parquet")
    parser.add_argument("--scheduler", help="address of a running Dask scheduler; a local cluster if omitted")
    parser.add_argument("--workers", type=int, help="processes of the local cluster; 0: this process, without Dask")
    parser.add_argument("--together", type=int, default=1, help="trials to train at once on a worker, for a GPU")
    options = parser.parse_args(arguments)
    table = record_study(
        STUDIES[options.study],
        options.file,
        function=_FUNCTIONS.get(options.study),
        together=options.together,
        scheduler=options.scheduler,
        n_workers=options.workers,
    )
    return int(not {trial_of(row) for row in table.to_dict("records")}.issuperset(STUDIES[options.study]))


if __name__ == "__main__":
    # by its importable name, which the workers need: they know no __main__
    from tdi_lib.study.sweep import main as run

    sys.exit(run())
