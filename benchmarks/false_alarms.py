"""How often ``tdi diagnose`` says "use it" where labels mean nothing, and where they mean something.

    python benchmarks/false_alarms.py                      # 200 tasks of each kind, about 20 minutes on one core
    python benchmarks/false_alarms.py --tasks 20 --kinds windows windows-unsaid

Kinds without a task: ``independent`` samples; ``copies``, each sample six times under one random label; ``windows``
that overlap by half, of eight persons with spectra of their own, a random label per person, groups given;
``windows-unsaid``, the same without groups; ``shuffled``, the same in random order without groups. True tasks:
``tones`` (four bands), ``tone-copies`` (each sample six times), ``persons`` (24, labels are a band, groups given).
"""

import argparse
import os
import time

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy and torch are imported

import numpy as np
import scipy.signal
import torch

from tdi_lib.app.diagnose import diagnose
from tdi_lib.data.synthetic import four_tones

Task = tuple[np.ndarray, np.ndarray, np.ndarray | None]
LENGTH, WINDOWS = 64, 27


def persons(rng: np.random.Generator, n_persons: int, bands: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Windows (P, L) that overlap by half, of one recording per person, each with a resonance of its own."""
    windows = []
    for person in range(n_persons):
        omega = rng.uniform(0.2, 2.8) if bands is None else bands[person] + rng.normal(scale=0.1)
        pole = 0.9 * np.exp(1j * omega)
        noise = rng.standard_normal(LENGTH // 2 * (WINDOWS + 1) + 100)
        path = scipy.signal.lfilter([1.0], [1.0, -2 * pole.real, 0.81], noise)[100:]
        windows += [path[k * LENGTH // 2 : k * LENGTH // 2 + LENGTH] for k in range(WINDOWS)]
    return np.array(windows), np.repeat(np.arange(n_persons), WINDOWS)


def task(kind: str, seed: int) -> Task:
    """Sequences, labels, and groups where they are given."""
    rng = np.random.default_rng([seed, 11])
    if kind == "independent":
        return np.cumsum(rng.standard_normal((60, LENGTH)), axis=1), rng.integers(2, size=60), None
    if kind in ("copies", "tone-copies"):
        x, y = four_tones(48, amplitude=0.5, generator=rng, length=LENGTH)
        if kind == "copies":
            x, y = rng.standard_normal((24, LENGTH)), rng.integers(2, size=24)
        order = rng.permutation(6 * len(x))
        return np.repeat(x, 6, axis=0)[order], np.repeat(y, 6)[order], None
    if kind == "tones":
        return *four_tones(64, amplitude=0.5, generator=rng, length=LENGTH), None
    n_persons = 24 if kind == "persons" else 8
    labels = rng.permutation(np.arange(n_persons) % 2)
    x, groups = persons(rng, n_persons, 1.0 + 1.2 * labels if kind == "persons" else None)
    order = rng.permutation(len(x)) if kind == "shuffled" else np.arange(len(x))
    said = None if kind in ("windows-unsaid", "shuffled") else groups[order]
    return x[order], labels[groups][order], said


FALSE = ("independent", "copies", "windows", "windows-unsaid", "shuffled")
TRUE = ("tones", "tone-copies", "persons")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", default=[*FALSE, *TRUE], choices=[*FALSE, *TRUE])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for kind in options.kinds:
        begin, said = time.perf_counter(), []
        for seed in range(options.tasks):
            x, y, groups = task(kind, seed)
            said.append(diagnose(x, y, groups=groups, n_permutations=99, seed=seed, d_model=8, d_state=8).verdict)
        share = {verdict: said.count(verdict) / len(said) for verdict in ("use it", "try it", "do not bother")}
        shown = ", ".join(f"{verdict} {100 * value:.1f} %" for verdict, value in share.items())
        print(f"{kind}: {shown} of {len(said)} tasks; {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
