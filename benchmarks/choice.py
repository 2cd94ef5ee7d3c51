"""Which initialization does a method choose, and what does the choice bring? On the development sets only.

    python benchmarks/choice.py                   # activities, ecg5000, forda; 50 and 200 examples; seeds 0 and 1

Every choice and every test loss is a record under ``_build/choice``: stop it and start it again, it goes on. One layer
of 192 channels with a read-out in closed form is chosen for by ``readout``, with as many channels or fewer.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy and torch are imported

import numpy as np
import torch
from torch import nn

from tdi_lib import SequenceModel
from tdi_lib.choice import choose_start, named_starts
from tdi_lib.data import sets
from tdi_lib.readout import ridge_readout_
from tdi_lib.records import Store
from tdi_lib.training import fit

DATASETS, SIZES, SEEDS = ("activities", "ecg5000", "forda"), (50, 200), (0, 1)
N_TEST = 600
CHOICES = ((48, 3), (48, 5), (192, 3))  # channels, folds


class Task:
    """Examples, standardized by their own scale, and some of the test set."""

    def __init__(self, name: str, n: int, seed: int) -> None:
        data = sets.load(name, progress=False)
        part = data.subset(n, seed=seed)
        mean, scale = part.x.mean(axis=(0, 1)), part.x.std(axis=(0, 1))
        some = np.linspace(0, len(data.y_test) - 1, min(N_TEST, len(data.y_test))).astype(int)
        self.data, self.seed = data, seed
        self.x, self.x_val, self.x_test = ((a - mean) / scale for a in (part.x, part.x_val, data.x_test[some]))
        self.y, self.y_val, self.y_test = part.y, part.y_val, data.y_test[some]

    @property
    def every(self) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([self.x, self.x_val]), np.concatenate([self.y, self.y_val])

    def starts(self, **options: Any) -> dict[str, Any]:
        def make(generator: torch.Generator) -> nn.Module:
            return SequenceModel(self.data.d_input, self.data.n_classes, d_state=32, generator=generator, **options)

        return named_starts(make, seed=self.seed)

    @torch.no_grad()
    def test_loss(self, model: nn.Module) -> float:
        model.eval()
        logits = torch.cat([model(part) for part in torch.as_tensor(self.x_test, dtype=torch.float32).split(32)])
        return float(nn.functional.cross_entropy(logits.double(), torch.as_tensor(self.y_test)))


BANK = {"n_layers": 1, "pooling": "statistics"}


def closed(task: Task, start: str) -> dict[str, Any]:
    """Test loss of a start with its read-out in closed form."""
    begin = time.process_time()
    x, y = task.every
    model = task.starts(d_model=192, **BANK)[start](x, y)
    left_out = ridge_readout_(model, x, y).loss
    return {"seconds": time.process_time() - begin, "left_out": left_out, "loss": task.test_loss(model)}


def by_readout(task: Task, d_model: int, folds: int) -> dict[str, Any]:
    """What the held-out closed form says of every start."""
    begin = time.process_time()
    starts = task.starts(d_model=d_model, **BANK)
    del starts["gains"]  # the statistics are relative to a channel's power: the same as the default
    found = choose_start(starts, *task.every, method="readout", folds=folds, seed=task.seed, progress=False)
    candidates = {each.name: [each.loss, each.gain, each.error] for each in found.candidates}
    return {"seconds": time.process_time() - begin, "candidates": candidates}


STUDY = {"d_model": 32, "n_layers": 2}


def trained(task: Task, start: str) -> dict[str, Any]:
    """Test loss of the deep study's model after training from a start."""
    begin = time.process_time()
    model = task.starts(**STUDY)[start](task.x, task.y)
    rest = {"x_val": task.x_val, "y_val": task.y_val, "max_steps": 400, "seed": task.seed, "progress": False}
    result = fit(model, task.x, task.y, **rest)
    return {"seconds": time.process_time() - begin, "steps": result.history[-1]["step"], "loss": task.test_loss(model)}


def by_method(task: Task, method: str) -> dict[str, Any]:
    """What evidence, or a race, says of every start of the deep study's model."""
    begin = time.process_time()
    found = choose_start(task.starts(**STUDY), *task.every, method=method, seed=task.seed, progress=False)
    candidates = {each.name: [each.loss, each.gain, each.error] for each in found.candidates}
    return {"seconds": time.process_time() - begin, "candidates": candidates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=DATASETS, choices=DATASETS)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--what", nargs="+", default=("closed", "trained"), choices=("closed", "trained"))
    options = parser.parse_args()
    store = Store(Path(__file__).parents[1] / "_build" / "choice")

    def record(config: dict[str, Any], make: Any, *arguments: Any) -> None:
        if config not in store:
            store.put(config, make(*arguments))
            print(store.get(config), flush=True)

    for n in options.sizes:
        for seed in options.seeds:
            for name in options.datasets:
                task, base = Task(name, n, seed), {"dataset": name, "n": n, "seed": seed}
                if "closed" in options.what:
                    for d_model, folds in CHOICES:
                        if folds == 3 or n == 50:
                            what = {"what": "readout", "d_model": d_model, "folds": folds}
                            record(base | what, by_readout, task, d_model, folds)
                    for start in task.starts(d_model=8, **BANK):
                        if start != "gains":
                            record(base | {"what": "closed", "start": start}, closed, task, start)
                if "trained" in options.what:
                    for method in ("evidence", "race"):
                        record(base | {"what": method}, by_method, task, method)
                    for start in task.starts(**STUDY):
                        record(base | {"what": "trained", "start": start}, trained, task, start)


if __name__ == "__main__":
    main()
