"""Kernel regression instead of training: untrained filters with a read-out in closed form, beside the trained record.

    python benchmarks/readout.py                    # the development sets, 50 and 200 examples, seeds 0 and 1
    python benchmarks/readout.py --datasets forda --seeds 0 --d-model 96

Test loss in nats and accuracy, means over seeds. ``trained`` is the deep study's S4D-Lin (results/deep.parquet), which
keeps a fifth of the examples back to choose its step; the closed form needs none of it and uses all. ``(four fifths)``
is the closed form on just the examples that the trained model learns from. ``convolutions`` are 2,000 random ones.
The default takes a quarter of an hour on one core.
"""

import argparse
import os
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy and torch are imported

import numpy as np
import pandas as pd
import torch
from torch import nn

from tdi_lib import SequenceModel, tdi_init_
from tdi_lib.data import sets
from tdi_lib.readout import RandomConvolutions, ReadoutReport, ridge_readout_

STARTS = ("S4D-Lin", "matched", "flat", "convolutions")
DEEP = Path(__file__).parents[1] / "results" / "deep.parquet"


def build(
    start: str, data: sets.SequenceDataset, x: np.ndarray, y: np.ndarray, seed: int, d_model: int
) -> tuple[nn.Module, ReadoutReport]:
    """A model that is not trained; the filters of ``matched`` and ``flat`` look at the examples, too."""
    generator = torch.Generator().manual_seed(seed)
    model: nn.Module
    if start == "convolutions":
        model = RandomConvolutions(data.d_input, data.n_classes, data.length, generator=generator)
        return model, ridge_readout_(model, x, y)
    options = {"d_model": d_model, "d_state": 32, "n_layers": 1, "pooling": "statistics"}
    model = SequenceModel(data.d_input, data.n_classes, generator=generator, **options)
    if start == "S4D-Lin":
        return model, ridge_readout_(model, x, y)
    method = {"matched": "auto", "flat": "flat"}[start]
    report = tdi_init_(model, x, y, method=method, readout="ridge", generator=generator).readout
    assert report is not None
    return model, report


@torch.no_grad()
def scores(model: nn.Module, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Cross-entropy and accuracy."""
    model.eval()
    logits = torch.cat([model(part) for part in torch.as_tensor(x, dtype=torch.float32).split(64)]).double()
    labels = torch.as_tensor(y)
    return float(nn.functional.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).double().mean())


def run(name: str, n: int, seed: int, d_model: int) -> list[dict[str, object]]:
    """Rows of every start, for all examples and for those that training would learn from."""
    data = sets.load(name, progress=False)
    part = data.subset(n, seed=seed)
    mean, scale = part.x.mean(axis=(0, 1)), part.x.std(axis=(0, 1))
    x_test = (data.x_test - mean) / scale
    every = np.concatenate([part.x, part.x_val]), np.concatenate([part.y, part.y_val])
    rows: list[dict[str, object]] = []
    for start in STARTS:
        for share, x, y in (("", *every), (" (four fifths)", part.x, part.y)):
            begin = time.perf_counter()
            model, report = build(start, data, (x - mean) / scale, y, seed, d_model)
            seconds = time.perf_counter() - begin
            loss, accuracy = scores(model, x_test, data.y_test)
            row = {"dataset": name, "n": n, "seed": seed, "model": start + share, "loss": loss, "accuracy": accuracy}
            rows.append(row | {"left_out": report.loss, "ridge": report.ridge, "seconds": seconds})
            print(*(f"{v:.3g}" if isinstance(v, float) else v for v in rows[-1].values()), flush=True)
    return rows


def trained(names: list[str], sizes: list[int], seeds: list[int]) -> pd.DataFrame:
    """The record's S4D-Lin and matched model at the same sizes and seeds."""
    deep = pd.read_parquet(DEEP)
    usual = {"d_model": 32, "n_layers": 2, "max_steps": 400, "pretrain_steps": 0, "dt_min": 1e-3, "dt_max": 1e-1}
    keep = (deep[list(usual)] == pd.Series(usual)).all(axis=1) & deep["init"].isin(["lin", "tdi"])
    deep = deep[keep & deep["dataset"].isin(names) & deep["n"].isin(sizes) & deep["seed"].isin(seeds)]
    return deep.assign(model=deep["init"].map({"lin": "trained", "tdi": "trained, matched"}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["activities", "ecg5000", "forda"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[50, 200])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--d-model", type=int, default=192)
    options = parser.parse_args()
    jobs = [(name, n, seed) for name in options.datasets for n in options.sizes for seed in options.seeds]
    table = pd.DataFrame([row for job in jobs for row in run(*job, options.d_model)])
    table = pd.concat([table, trained(options.datasets, options.sizes, options.seeds)])
    for measure in ("loss", "accuracy"):
        means = table.pivot_table(measure, ["dataset", "n"], "model")
        print(f"\n{measure}\n{means.round(3).T.to_string()}")


if __name__ == "__main__":
    main()
