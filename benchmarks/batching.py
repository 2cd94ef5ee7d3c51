"""Trials one by one against trials trained at once, on one device: trials per hour.

    python benchmarks/batching.py                     # on the GPU if there is one, else on one thread of the CPU
    python benchmarks/batching.py --together 64 256   # how many at once
    python benchmarks/batching.py --file results/batching.parquet

Trials of the study's model (32 channels, 32 states, two layers, batches of 32) on generated four-tone sequences of
length 512 with validation sets of two sizes, as in ``run_trial`` and ``run_trials`` but for the preparation, which is
the same in both. Early stopping is off, so that both do the same steps. A warm-up run of each comes first; then the two
take turns, so that a slow spell of the machine meets both, and the medians of the repeats are compared.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are imported

import numpy as np
import pandas as pd
import torch

from tdi_lib.data.synthetic import four_tones
from tdi_lib.records import provenance
from tdi_lib.ssm import SequenceModel
from tdi_lib.training import fit, fit_many

LENGTH = 512


def trials(count: int) -> tuple[list[SequenceModel], list[tuple[np.ndarray, ...]]]:
    models = [
        SequenceModel(1, 4, d_model=32, d_state=32, n_layers=2, generator=torch.Generator().manual_seed(seed))
        for seed in range(count)
    ]
    data = []
    for seed in range(count):
        draw = np.random.default_rng(seed)
        x, y = four_tones(200 if seed % 2 else 100, amplitude=0.25, length=LENGTH, generator=draw)
        cut = len(x) // 5
        data.append((x[cut:, :, None], y[cut:], x[:cut, :, None], y[:cut]))
    return models, data


def one_by_one(count: int, steps: int, cuda: bool) -> float:
    models, data = trials(count)
    start = time.perf_counter()
    for seed, (model, (x, y, x_val, y_val)) in enumerate(zip(models, data, strict=True)):
        fit(
            model,
            x,
            y,
            x_val=x_val,
            y_val=y_val,
            max_steps=steps,
            patience=steps,
            seed=seed,
            progress=False,
            device="cuda" if cuda else "cpu",
        )
    return (time.perf_counter() - start) / count


def at_once(count: int, steps: int, cuda: bool) -> float:
    models, data = trials(count)
    start = time.perf_counter()
    fit_many(
        models,
        data,
        seeds=range(count),
        max_steps=steps,
        patience=steps,
        progress=False,
        device="cuda" if cuda else "cpu",
    )
    return (time.perf_counter() - start) / count


if __name__ == "__main__":
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description="Trials per hour, one by one and at once.")
    parser.add_argument("--together", type=int, nargs="+", default=[16, 64, 256] if cuda else [8])
    parser.add_argument("--steps", type=int, default=200 if cuda else 50, help="optimizer steps of a trial")
    parser.add_argument("--repeats", type=int, default=5 if cuda else 3)
    parser.add_argument("--file", type=Path, help="Parquet file for the record; on the screen only if omitted")
    options = parser.parse_args()
    print(provenance()["device"], f"{torch.get_num_threads()} thread(s)", f"{options.steps} steps a trial", sep=", ")
    rows = []
    for together in options.together:
        one_by_one(1, 25, cuda)
        at_once(together, 25, cuda)
        alone, batched = [], []
        for _ in range(options.repeats):
            alone.append(one_by_one(2, options.steps, cuda))
            batched.append(at_once(together, options.steps, cuda))
        rates = {"alone": 3600 / statistics.median(alone), "at_once": 3600 / statistics.median(batched)}
        print(
            f"{together:4d} at once: {rates['at_once']:9.0f} trials per hour, one by one {rates['alone']:7.0f}: "
            f"{rates['at_once'] / rates['alone']:.1f} times as many"
        )
        spread = {"alone_seconds": alone, "at_once_seconds": batched}
        rows.append({"together": together, "steps": options.steps, "length": LENGTH} | rates | spread)
    if options.file is not None:
        pd.DataFrame(rows).assign(provenance=json.dumps(provenance())).to_parquet(options.file, index=False)
