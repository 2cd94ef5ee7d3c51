"""The two-table kernel against the direct (H, N, L) sum: forward plus backward, time and peak memory.

    python benchmarks/kernel.py

Both run in turn in one process for the times (medians, ratios); memory is the peak of a fresh process each, less what
the process needs before the first kernel.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch

from tdi_lib import DiagonalSSM

H, PAIRS = 128, 32


def direct(ssm: DiagonalSSM, length: int) -> torch.Tensor:
    log_a, b = ssm.discretize()
    powers = torch.exp(log_a[:, :, None] * torch.arange(length, dtype=ssm.log_dt.dtype))  # (H N L)
    return 2 * torch.einsum("hn,hnl->hl", ssm.C * b, powers).real


METHODS = {"two tables": DiagonalSSM.kernel, "direct": direct}


def run(method: str, length: int, ssm: DiagonalSSM) -> float:
    start = time.perf_counter()
    METHODS[method](ssm, length).square().sum().backward()
    return time.perf_counter() - start


def make() -> DiagonalSSM:
    return DiagonalSSM(H, 2 * PAIRS, generator=torch.Generator().manual_seed(0))


def peak_megabytes(method: str, length: int) -> float:
    command = [sys.executable, __file__, "--memory", method, str(length)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", nargs=2, metavar=("METHOD", "LENGTH"), help="used by the benchmark itself")
    arguments = parser.parse_args()
    ssm = make()
    if arguments.memory:
        method, length = arguments.memory
        run(method, 16, ssm)  # libraries loaded, gradients allocated
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run(method, int(length), ssm)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        return
    print(f"H = {H}, {PAIRS} pairs, float32, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'L':>6} {'method':>11} {'median s':>9} {'peak MB':>8} {'ratio':>6}")
    sizes = ((1024, 21), (16384, 5))
    # Before this process grows: a child starts with its parent's peak.
    memory = {(method, length): peak_megabytes(method, length) for length, _ in sizes for method in METHODS}
    for length, repeats in sizes:
        times: dict[str, list[float]] = {method: [] for method in METHODS}
        for _ in range(repeats + 1):  # in turn, so that a slow spell of the machine hits both; the first warms up
            for method in METHODS:
                times[method].append(run(method, length, ssm))
        medians = {method: statistics.median(values[1:]) for method, values in times.items()}
        for method, median in medians.items():
            ratio = medians["direct"] / median
            print(f"{length:6} {method:>11} {median:9.4f} {memory[method, length]:8.0f} {ratio:6.1f}")


if __name__ == "__main__":
    main()
