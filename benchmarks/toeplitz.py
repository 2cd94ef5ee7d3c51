"""What chapter 3 needs and a reader should not wait for: dense spectra up to L = 4096, fast ones up to L = 2^20.

    python benchmarks/toeplitz.py dense    # results/toeplitz_dense.parquet
    python benchmarks/toeplitz.py scale    # results/toeplitz_scale.parquet

``dense``: one row per random kernel, the two sides of the finite-L theorems; ten minutes. ``scale``: one row per method
and length: time, memory, and what was found; three minutes on a machine that does nothing else. Every measurement of
time and memory is a process of its own, on one thread; memory is that of the whole process, libraries included.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.fft
from scipy.sparse.linalg import LinearOperator
from tqdm import tqdm

from tdi_lib import theory
from tdi_lib.records import provenance
from tdi_lib.ssm import INITIALIZATIONS, seeded_ssm
from tdi_lib.theory import kernel_spectrum

# length: (steps, state sizes, channels)
DENSE = {
    1024: ((0.01, 0.1, 0.5), (4, 64), 2),
    2048: ((0.01, 0.1, 0.5), (4, 64), 1),
    4096: ((0.1,), (4, 64), 1),
}
FAST_LENGTHS = [2**p for p in range(8, 21, 2)]
DENSE_LENGTHS = [2**p for p in (8, 10, 11, 12)]
LONGEST_EXCESS = 2**16
# two threads wait for each other on a busy machine: OpenBLAS is then several times slower than with one
ONE_THREAD = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
RESULTS = Path(__file__).parents[1] / "results"


def dense_rows() -> pd.DataFrame:
    rows = []
    cases = [
        (length, init, dt, d)
        for length, (dts, ds, _) in DENSE.items()
        for init in INITIALIZATIONS
        for dt in dts
        for d in ds
    ]
    for seed, (length, init, dt, d_state) in enumerate(tqdm(cases, unit="model")):
        ssm = seeded_ssm(DENSE[length][2], d_state, seed=1000 + seed, init=init, dt_min=dt, dt_max=dt)
        for kernel in ssm.kernel(length).numpy():
            result = theory.compare_toeplitz(kernel)
            rows.append(
                {"init": init, "dt": dt, "d_state": d_state, "length": length, "seed": 1000 + seed}
                | {"distance": result.distance, "bound": result.bound}
            )
    return pd.DataFrame(rows)


def channel(length: int) -> np.ndarray:
    """The channel of the chapter's first figure."""
    return seeded_ssm(1, dt_min=0.1, dt_max=0.1).kernel(length)[0].numpy()


def bend(eta: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The smooth function whose sums are compared: log(1 + eta / mean)."""
    return np.log1p(eta / (kernel @ kernel))


def excess(kernel: np.ndarray, n_probes: int) -> np.ndarray:
    """tr f(T'T) - tr f(C'C), one estimate per random vector; both matrices see the same vectors."""
    length = kernel.size
    power = np.abs(scipy.fft.rfft(kernel)) ** 2
    around = lambda x: scipy.fft.irfft(scipy.fft.rfft(x.T) * power, length).T  # noqa: E731
    circulant = LinearOperator((length, length), dtype=float, matvec=around, matmat=around)
    causal = theory.convolution_operator(kernel)
    signs = np.random.default_rng(0).integers(0, 2, (n_probes, length)).T * 2.0 - 1
    sums = []
    for operator in (causal.T @ causal, circulant):
        nodes, weights = theory.lanczos_measure(operator, signs, 64)
        sums.append((weights * bend(nodes, kernel)).sum(axis=1))
    return sums[0] - sums[1]


def measure(method: str, length: int) -> dict:
    kernel = channel(length)
    theory.toeplitz_singular_values(kernel[:16])  # libraries loaded
    row: dict = {"method": method, "length": length}
    seconds = []
    for _ in range(3 if length <= 2**14 and (method, length) != ("dense", 4096) else 1):
        start = time.perf_counter()
        if method == "dense":
            eta, counts = theory.toeplitz_singular_values(kernel) ** 2, np.ones(length)
        else:
            spectrum = kernel_spectrum(kernel, method="fast")
            eta, counts = spectrum.eigenvalues, spectrum.counts
        seconds.append(time.perf_counter() - start)
    row |= {"seconds": float(np.median(seconds)), "mean": float(counts @ bend(eta, kernel) / length)}
    start = time.perf_counter()
    if method == "fast":
        extremes = theory.extreme_singular_values(kernel)
        row |= {"largest_low": extremes.largest[0], "largest_high": extremes.largest[1]}
        row |= {"kept_low": extremes.smallest_kept[0], "kept_high": extremes.smallest_kept[1]}
        row |= {"n_fallen": -1 if extremes.n_fallen is None else extremes.n_fallen}
        row |= {"extremes_seconds": time.perf_counter() - start}
        row |= {"eigenvalues": eta.tolist(), "counts": counts.tolist()} if length == FAST_LENGTHS[-1] else {}
    row["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    response = bend(np.abs(scipy.fft.fft(kernel)) ** 2, kernel)
    row["mean_response"] = float(response.mean())
    if method == "dense":
        row["excess"] = float(bend(eta, kernel).sum() - response.sum())
    elif length <= LONGEST_EXCESS:
        each = excess(kernel, max(4, min(32, 2**18 // length)))
        row |= {"excess": float(each.mean()), "excess_error": float(each.std(ddof=1) / np.sqrt(each.size))}
    return row


def scale_rows() -> pd.DataFrame:
    rows = []
    cases = [("fast", n) for n in FAST_LENGTHS] + [("dense", n) for n in DENSE_LENGTHS]
    for method, length in tqdm(cases, unit="run"):
        command = [sys.executable, __file__, "scale", "--measure", method, str(length)]
        result = subprocess.run(command, env=ONE_THREAD, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(result.stdout))
    return pd.DataFrame(rows)


STUDIES = {"dense": dense_rows, "scale": scale_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "LENGTH"), help="used by the script itself")
    arguments = parser.parse_args()
    if arguments.measure:
        method, length = arguments.measure
        print(json.dumps(measure(method, int(length))))
        return
    origin = json.dumps(provenance())  # of the code as it is now, not when the study ends
    table = STUDIES[arguments.study]()
    table["provenance"] = origin
    table.to_parquet(RESULTS / f"toeplitz_{arguments.study}.parquet", index=False)


if __name__ == "__main__":
    main()
