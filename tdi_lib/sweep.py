"""Run a function over many configurations with Dask, on this machine or on any cluster that Dask reaches.

The workers write their records into a :class:`~tdi_lib.store.Store` themselves. So the driver may die, and the workers
too: start the sweep again and it goes on with what is missing. Which machines take part is Dask's affair: pass the
address of a scheduler that runs already (on Slurm, Kubernetes, machines reached by SSH), or none for a local cluster.
"""

import contextlib
import dataclasses
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from distributed import Client, Future, LocalCluster, as_completed
from tqdm import tqdm

from tdi_lib import _checks
from tdi_lib.store import Store, config_key

__all__ = ["SweepReport", "sweep"]


@dataclasses.dataclass(frozen=True)
class SweepReport:
    """What a sweep did.

    Attributes:
        done: how many configurations it ran and recorded.
        already: how many were recorded before, or are being run by another sweep.
        failed: the errors, by configuration key; with their configurations they lie in the store's folder ``failed``.
        seconds: wall time.
    """

    done: int
    already: int
    failed: dict[str, str]
    seconds: float


def sweep(
    function: Callable[[dict[str, Any]], Mapping[str, Any]],
    configs: Iterable[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    *,
    scheduler: str | None = None,
    n_workers: int | None = None,
    progress: bool = True,
) -> SweepReport:
    """Call ``function(config)`` for every configuration that the store lacks, and record what it returns.

    Args:
        function: importable where the workers run; returns a mapping of JSON values. It gets one thread.
        configs: mappings of JSON values; repeated ones run once.
        folder: of the :class:`~tdi_lib.store.Store`, seen by all workers.
        scheduler: address of a running Dask scheduler, such as ``tcp://node7:8786``; a local cluster if omitted.
        n_workers: processes of the local cluster; by default one per core.
        progress: show a bar with an estimate of the time left.

    A configuration that raises is noted under ``failed`` with its traceback and does not stop the rest; so is one over
    which three workers have died. The next sweep tries both again.

    Raises:
        TypeError, ValueError: naming the argument.
        OSError: if the scheduler does not answer.
    """
    if not callable(function):
        raise TypeError(f"function must be callable, got {type(function).__name__}")
    if n_workers is not None:
        n_workers = _checks.positive_int("n_workers", n_workers)
        if scheduler is not None:
            raise ValueError("n_workers must be left out with a scheduler, which has its own workers")
    start = time.perf_counter()
    store, failures = Store(folder), Store(Path(folder) / "failed")
    unique = {config_key(config): dict(config) for config in configs}
    missing = {key: config for key, config in unique.items() if config not in store}
    counts = {"done": 0, "already": len(unique) - len(missing)}
    failed: dict[str, str] = {}
    with (
        tqdm(total=len(unique), initial=counts["already"], unit="trial", disable=not progress, smoothing=0.05) as bar,
        _client(scheduler, n_workers, len(missing)) as client,
    ):
        where = str(store.folder.resolve())
        futures = {client.submit(_run, function, c, where, pure=False): key for key, c in missing.items()}
        for future in as_completed(list(futures), loop=client.loop):
            key = futures.pop(future)
            outcome = _outcome(future)
            failures.discard(missing[key])
            if outcome in counts:
                counts[outcome] += 1
            else:
                failed[key] = outcome
                failures.put(missing[key], {"error": outcome})
            bar.update()
            bar.set_postfix(failed=len(failed), refresh=False)
    return SweepReport(counts["done"], counts["already"], failed, time.perf_counter() - start)


def _run(function: Callable[[dict[str, Any]], Mapping[str, Any]], config: dict[str, Any], folder: str) -> str:
    """On a worker: run one configuration, unless somebody has, or does."""
    torch.set_num_threads(1)
    store = Store(folder)
    with store.claim(config) as mine:
        if not mine or config in store:
            return "already"
        store.put(config, function(config))
        return "done"


def _outcome(future: "Future[str]") -> str:
    """``done``, ``already``, or the text of an error: the function's own, or the workers' death."""
    error = future.exception()
    if error is None:
        return future.result()
    return "".join(traceback.format_exception(error)).strip()


@contextlib.contextmanager
def _client(scheduler: str | None, n_workers: int | None, n_tasks: int) -> Iterator[Client]:
    """The scheduler's client, or that of a local cluster, which is taken down afterwards."""
    if scheduler is not None:
        with Client(scheduler, set_as_default=False) as client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=max(1, min(n_workers or os.cpu_count() or 1, n_tasks)),
            threads_per_worker=1,
            memory_limit=0,  # a trial that needs more than its share must not be paused for it
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
