"""The verdict on tasks of known truth: bands to be heard, noise, shuffled labels, what the default was made for."""

import itertools
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.stats
import torch

from tdi_lib.app.diagnose import Forecast, Structure, diagnose, overlapping, recommend, spectral_structure, usable
from tdi_lib.app.files import read
from tdi_lib.data.synthetic import TONES, autocovariance, band_functionals, four_tones
from tdi_lib.spectrum import order_evidence
from tdi_lib.ssm import seeded_ssm
from tdi_lib.tdi import Comparison, HeldOut, _halves
from tdi_lib.theory import feature_root, layer_matrix

SMALL = {"d_model": 16, "d_state": 16}


def high_band(seed: int, n: int = 64, length: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Red input, a linear target that listens at 2.5 rad/sample."""
    rng = np.random.default_rng(seed)
    r = autocovariance(1, length)
    x = rng.standard_normal((n, length)) @ np.linalg.cholesky(scipy.linalg.toeplitz(r)).T
    return x, x @ band_functionals(2.5, r, 1, generator=rng)[0] + 0.3 * rng.standard_normal(n)


def of_the_default(seed: int, n: int = 96, length: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A linear target drawn from the prior that S4D-Lin is: nothing fits it better."""
    rng = np.random.default_rng([seed, 1])
    root = feature_root(layer_matrix(seeded_ssm(64, 64, seed=seed).kernel(length).numpy()))
    x = rng.standard_normal((n, length))
    y = x @ (root @ rng.standard_normal(length))
    return x, y / y.std() + 0.3 * rng.standard_normal(n)


def noise(seed: int, n: int = 60, length: int = 64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 2])
    x = np.cumsum(rng.standard_normal((n, length)), axis=1)
    return x, rng.standard_normal(n) if seed % 2 else rng.integers(3, size=n)


def shuffled(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 3])
    x, y = four_tones(60, amplitude=0.4, generator=rng, length=64) if seed % 2 else high_band(seed, 60, 64)
    return x, rng.permutation(y)


@pytest.mark.parametrize("seed", range(3))
def test_tones_are_worth_it(seed: int) -> None:
    x, y = four_tones(128, amplitude=0.3, generator=np.random.default_rng(seed))
    found = diagnose(x, y, sampling_rate=100.0)
    assert found.verdict == "use it" and found.structure.order == "second" and found.forecast is None
    assert found.distances["tdi"] < 0.1 < 1.5 < found.distances["lin"]
    assert max(band.share for band in found.bands) > 0.6
    loudest = max(found.bands, key=lambda band: band.share)
    assert loudest.low < TONES[0] + 0.1 and TONES[-1] - 0.1 < loudest.high
    assert math.isclose(found.to_dict()["quantiles_hz"][1], found.quantiles[1] / (2 * math.pi) * 100)


@pytest.mark.parametrize("seed", range(3))
def test_a_high_band_on_red_input_is_worth_it(seed: int) -> None:
    found = diagnose(*high_band(seed))
    assert found.verdict == "use it" and found.structure.order == "first"
    assert abs(found.quantiles[1] - 2.5) < 0.1
    assert found.forecast is not None and found.forecast.low <= found.forecast.gain <= found.forecast.high
    assert found.forecast.low > 0.3


def test_what_the_default_was_made_for_is_left_to_it() -> None:
    verdicts = [diagnose(*of_the_default(seed), seed=100 + seed).verdict for seed in range(8)]
    assert verdicts.count("do not bother") >= 7 and "use it" not in verdicts


@pytest.mark.parametrize("task", [noise, shuffled])
def test_nothing_is_seen_where_nothing_is(task) -> None:
    p = np.array([spectral_structure(*task(seed)).p_value for seed in range(200)])
    assert abs(np.mean(p <= 0.05) - 0.05) < 3 * math.sqrt(0.05 * 0.95 / len(p))
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    # what the permutations let pass has to please the held-out samples too
    doubtful = [diagnose(*task(seed), **SMALL) for seed in np.flatnonzero(p <= 0.05)]
    assert all(found.structure.p_value <= 0.05 for found in doubtful)
    assert sum(found.verdict != "do not bother" for found in doubtful) <= 0.05 * len(p)
    assert diagnose(*task(int(p.argmax())), **SMALL).verdict == "do not bother"


def test_the_statistic_is_the_larger_evidence_and_permutations_are_what_they_say() -> None:
    x, y = high_band(0, 40, 32)
    found = spectral_structure(x, y, n_permutations=19, seed=3)
    assert (found.first, found.second) == order_evidence(x, y)
    rng = np.random.default_rng(3)
    largest = max(found.first, found.second)
    beaten = sum(max(order_evidence(x, y[rng.permutation(40)])) >= largest for _ in range(19))
    assert found.p_value == (1 + beaten) / 20


def test_channels_and_every_kind_of_target_are_taken() -> None:
    x, y = four_tones(64, amplitude=0.5, generator=np.random.default_rng(0), length=64)
    two = np.stack([np.random.default_rng(1).normal(size=x.shape), x], axis=2)
    words = np.array(["a", "b", "c", "d"])[y]
    base = diagnose(two, y, **SMALL)
    assert (base.n_samples, base.length, base.n_channels, base.n_classes) == (64, 64, 2, 4)
    assert diagnose(torch.as_tensor(two), torch.as_tensor(y), **SMALL).to_dict() == base.to_dict()
    assert diagnose(two, words, **SMALL).to_dict() == base.to_dict()
    real = diagnose(x, np.eye(4)[y], **SMALL)
    assert real.n_classes is None and real.structure.order == "second"


def test_it_is_plain_numbers_and_the_same_twice() -> None:
    x, y = high_band(1, 40, 64)
    first, second = (json.dumps(diagnose(x, y, sampling_rate=50, **SMALL).to_dict(), allow_nan=False) for _ in range(2))
    assert first == second
    assert json.loads(first)["structure"]["order"] == "first"


def test_lengths_that_differ_are_cut_and_said() -> None:
    x, y = four_tones(48, amplitude=0.4, generator=np.random.default_rng(0), length=64)
    x[5, 50:] = np.nan
    x[7, 20:] = np.nan
    x[9] = 3.0
    inputs, targets, _, notes = usable(x, y)
    assert inputs.shape == (46, 50, 1)
    kept = [i for i in range(48) if i not in (7, 9)]
    np.testing.assert_array_equal(inputs[:, :, 0], x[kept, :50])
    np.testing.assert_array_equal(targets, y[kept])
    assert notes[0].startswith("sequences of 20 to 64 steps were cut to 50 and 1 shorter ones left out: 22 % of the")
    assert notes[1] == "1 constant sequence left out"
    found = diagnose(x, y, **SMALL)
    assert found.notes == tuple(notes) and found.length == 50


def test_long_and_many_are_bounded_and_said() -> None:
    x = np.random.default_rng(0).standard_normal((200, 1600))
    y = x[:, 1100:1200] @ np.cos(2.0 * np.arange(100))  # in two of the six windows looked at
    found = diagnose(x, y, **SMALL)
    assert found.length == 1600 and found.verdict == "use it"
    assert re.search(r"512 of the 1,600 steps, from (870|1,088) on", found.notes[0])
    x, y = four_tones(2100, amplitude=0.3, generator=np.random.default_rng(0), length=16)
    found = diagnose(x, y, **SMALL)
    assert found.n_samples == 2100 and "2,000 of the 2,100 samples" in found.notes[0]


def comparison(difference: float, error: float = 0.02, base: float = 0.5) -> Comparison:
    return Comparison(base, base + difference, difference, error, "first")


@pytest.mark.parametrize(
    ("p_value", "held_out", "forecast", "verdict"),
    [
        (0.06, comparison(-0.3), Forecast(1.0, 0.5, 1.5), "do not bother"),
        (0.05, comparison(-0.3), Forecast(1.0, 0.5, 1.5), "use it"),
        (0.05, comparison(-0.3), None, "use it"),
        (0.05, comparison(-0.01), None, "do not bother"),
        (0.05, comparison(0.1), None, "do not bother"),
        (0.05, comparison(-0.03), None, "try it"),  # between one standard error and two
        (0.05, comparison(-0.045, 0.001), None, "try it"),  # sure, but less than a tenth
        (0.05, comparison(-0.3), Forecast(1.0, -0.1, 1.5), "try it"),
        (0.05, comparison(-0.3), Forecast(-0.1, -0.2, 1.5), "do not bother"),
    ],
)
def test_the_rule(p_value: float, held_out: Comparison, forecast: Forecast | None, verdict: str) -> None:
    structure = Structure(-1.3, -1.4, p_value, 199)
    for against, flat in ((-0.2, 0.0), (0.0, 0.0), (0.1, -0.03), (0.1, -0.1)):
        found, reason, start = recommend(
            structure, {"lin": 1.0}, held_out, comparison(against), comparison(flat), forecast, 100
        )
        instead = p_value <= 0.05 and not held_out.better and flat == -0.1  # the flat bank alone, by five errors
        assert found == ("try it" if instead else verdict) and reason.endswith(".")
        assert start == ("flat" if instead else "lin" if verdict == "do not bother" else "tdi")
        assert ("is better (−0.1 ± 0.02)" in reason) == instead
        if start == "tdi":
            assert ("blind to the targets, does as well here" in reason) == (against >= 0)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (
            np.zeros((3, 2, 1, 1)),
            np.zeros(3),
            {},
            r"x must be sequences \(P, L\) or \(P, L, D\), time before channels, got sh",
        ),
        (np.ones((20, 30)), np.arange(20), {}, "x must hold mostly sequences that vary, got 20 constant of 20"),
        (noise(1)[0], np.zeros(59), {}, r"y must hold one target per sequence of x \(60\), got shape \(59,\)"),
        (noise(1)[0], np.zeros(60), {}, "y must hold at least two classes"),
        (noise(1)[0][:15], np.arange(15.0), {}, "x must hold at least 16 usable samples, .* got 15"),
        (noise(1)[0][:19], np.arange(19) % 5, {}, "x must hold at least 20 usable samples of 5 classes, .* got 19"),
        (noise(1)[0][:, :7], noise(1)[1], {}, "x must have at least 8 time steps"),
        (*noise(1), {"sampling_rate": 0}, "sampling_rate must be a finite number"),
        (*noise(1), {"n_permutations": 0}, "n_permutations must be at least 1"),
        (*noise(1), {"d_state": 3}, "d_state must be even"),
    ],
)
def test_bad_input_is_named(x, y, options, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        diagnose(x, y, **options)
    gap = np.array(noise(1)[0])
    gap[3, 5] = np.nan
    with pytest.raises(ValueError, match="^x must have NaN at the ends of sequences only.* first at index"):
        usable(gap, noise(1)[1])


# ---- no false alarms: what belongs together is not counted as many

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from false_alarms import FALSE, TRUE, persons, task  # noqa: E402


@pytest.mark.parametrize("kind", [*FALSE, *TRUE])
def test_labels_that_mean_nothing_are_seldom_believed_and_true_ones_are(kind: str) -> None:
    """A slice of the simulation; benchmarks/false_alarms.py runs 200 tasks of each kind."""
    said = []
    for seed in range(8):
        x, y, groups = task(kind, 1000 + seed)
        said.append(diagnose(x, y, groups=groups, n_permutations=39, seed=seed, d_model=8, d_state=8).verdict)
    # eight tasks at 5 %: more than two false alarms would be chance once in 170
    assert said.count("use it") >= 7 if kind in TRUE else said.count("use it") <= 2, said


def test_labels_of_persons_are_permuted_between_persons() -> None:
    """All 70 ways of giving four of eight persons a label, by hand: the exact p-value."""
    rng = np.random.default_rng(3)
    x, groups = persons(rng, 8)
    x, groups = x[::2], groups[::2]
    labels = np.array([0, 1, 0, 0, 1, 1, 0, 1])
    largest = max(order_evidence(x, labels[groups]))
    ways = [np.isin(np.arange(8), chosen).astype(int)[groups] for chosen in itertools.combinations(range(8), 4)]
    exact = np.mean([max(order_evidence(x, way)) >= largest - 1e-12 for way in ways])
    found = spectral_structure(x, labels[groups], groups=groups, n_permutations=999)
    assert abs(found.p_value - exact) < 4 * math.sqrt(exact * (1 - exact) / 999) + 0.002
    assert spectral_structure(x, labels[groups], n_permutations=199).p_value <= 0.01 < exact  # what it was before


def test_every_sample_counts_once() -> None:
    x, y = four_tones(64, amplitude=0.5, generator=np.random.default_rng(0), length=64)
    base = diagnose(x, y, **SMALL).to_dict()
    many = diagnose(np.repeat(x, 3, axis=0), np.repeat(y, 3), **SMALL).to_dict()
    assert many.pop("notes") == ["128 exact copies of other samples left out"] and base.pop("notes") == []
    assert many == base
    odd = diagnose(np.concatenate([x, x[:9]]), np.concatenate([y, (y[:9] + 1) % 4]), **SMALL)
    assert odd.n_samples == 73 and odd.n_groups == 64 and "9 sequences come again with another target" in odd.notes[0]


def test_groups_are_kept_on_one_side_of_the_halves() -> None:
    rng = np.random.default_rng(0)
    groups, target = rng.integers(12, size=80), rng.normal(size=(80, 2))
    half = _halves(target, groups)
    assert all(len(set(half[groups == each])) == 1 for each in range(12)) and 0.2 < half.mean() < 0.8
    alone = np.zeros(80, bool)
    alone[np.lexsort(target.T)[::2]] = True
    np.testing.assert_array_equal(_halves(target, None), alone)
    misses = {"a": rng.random(80), "b": rng.random(80)}
    difference = misses["b"] - misses["a"]
    assert HeldOut(misses, "first").compare("a", "b").standard_error == pytest.approx(
        difference.std(ddof=1) / math.sqrt(80)
    )
    codes = np.repeat(np.arange(20), 4)
    means = difference.reshape(20, 4).mean(axis=1)
    assert HeldOut(misses, "first", codes).compare("a", "b").standard_error == pytest.approx(
        means.std(ddof=1) / math.sqrt(20)
    )


@pytest.mark.parametrize("change", ["as it is", "shuffled", "scaled", "rounded", "two channels"])
def test_overlapping_windows_are_found(change: str) -> None:
    rng = np.random.default_rng(0)
    x, groups = persons(rng, 6)
    if change == "scaled":
        x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    order = rng.permutation(len(x)) if change == "shuffled" else np.arange(len(x))
    x = x.round(2) if change == "rounded" else x
    inputs = np.stack([x, -x], axis=2) if change == "two channels" else x[:, :, None]
    notes: list[str] = []
    codes, alike = overlapping(inputs[order], groups[order], notes)
    assert not alike and codes is not None and "6 stretches" in notes[0]
    assert len(set(zip(codes.tolist(), groups[order].tolist(), strict=True))) == 6


def test_near_copies_hedge_the_verdict() -> None:
    """A tone per person under noise: no value comes again, but neighbors are alike."""
    rng = np.random.default_rng(0)
    t, x, y = np.arange(64), [], []
    for person in range(8):
        omega, labels = rng.uniform(0.3, 2.5), person % 2
        x += [np.sin(omega * t + 6 * rng.random()) + 0.05 * rng.normal(size=64) for _ in range(20)]
        y += [labels] * 20
    found = diagnose(np.array(x), np.array(y), **SMALL)
    assert found.verdict != "use it" and any("near-copies" in note for note in found.notes)
    one = np.sin(0.3 * np.arange(2000)) + np.random.default_rng(0).normal(size=2000)
    windows = np.stack([one[a : a + 64] for a in range(0, 1600, 20)])
    assert any("one recording" in note for note in diagnose(windows, np.arange(80) // 40, **SMALL).notes)


@pytest.mark.parametrize(
    "task", [noise, lambda seed: four_tones(64, amplitude=0.4, generator=np.random.default_rng(seed), length=64)]
)
def test_samples_that_stand_alone_stay_alone(task) -> None:
    x, y = task(0)
    assert overlapping(x[:, :, None], y, []) == (None, False)
    counts = np.random.default_rng(0).integers(0, 3, size=(60, 200))  # few values, many repeated by chance
    assert overlapping(counts[:, :, None].astype(float), np.zeros(60), []) == (None, False)


def test_a_difference_must_matter() -> None:
    """However sure: a millionth of the variance is not worth a change, and a solved task leaves nothing to win."""
    structure, sure = Structure(-1.0, -1.2, 0.005, 199), comparison(-2.8e-6, 3e-7, base=3e-6)
    said, reason, start = recommend(structure, {"lin": 1.0}, sure, sure, sure, None, 100)
    assert (said, start) == ("do not bother", "lin") and "makes no difference that matters (−2.8e" in reason
    flat = comparison(-0.009, 1e-4)
    assert recommend(structure, {"lin": 1.0}, comparison(0.1), comparison(0.1), flat, None, 100)[0] == "do not bother"


@pytest.mark.parametrize(
    "spell",
    [
        lambda y: pd.Series(np.array(["a", "b", "c", "d"])[y]),
        lambda y: np.array(["a", "b", "c", "d"], dtype=object)[y],
        lambda y: np.array([b"a", b"b", b"c", b"d"])[y],
        lambda y: pd.Categorical(np.array(["a", "b", "c", "d"])[y]),
        lambda y: np.array([-3, -1, 1, 3])[y],
        lambda y: y.astype(float) + 1,
        lambda y: torch.as_tensor(y, dtype=torch.bfloat16),
        lambda y: [str(each + 1) for each in y],
    ],
)
def test_one_rule_for_labels_whatever_spells_them(spell, tmp_path: Path) -> None:
    x, y = four_tones(64, amplitude=0.5, generator=np.random.default_rng(0), length=32)
    assert diagnose(x, spell(y), **SMALL).to_dict() == diagnose(x, y, **SMALL).to_dict()
    written = spell(y).double().numpy() if isinstance(spell(y), torch.Tensor) else spell(y)
    written = [each.decode() if isinstance(each, bytes) else each for each in written]
    table = pd.DataFrame(x).assign(label=[f"{each}" for each in np.asarray(written).tolist()])
    table.to_csv(tmp_path / "data.csv", index=False)
    samples = read(tmp_path / "data.csv")  # the same in a file
    np.testing.assert_array_equal(samples.y, y)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.ones((20, 1)), np.arange(20) % 2, {}, "x must hold sequences of several steps, got a length of 1"),
        (noise(0)[0][:52].repeat(4, 0)[:208] + np.arange(208)[:, None], np.arange(208) % 52 * 1.0, {},
         None),
        ([[1.0, 2.0], [1.0]], [0, 1], {}, "x must be sequences .* got a ragged sequence"),
        (noise(0)[0], [[1], [2, 3]] * 30, {}, "y must be one target per sequence, got a ragged sequence"),
        (torch.zeros(20, 30, device="meta"), np.arange(20), {}, "x must be .* got a tensor on the meta device"),
        (noise(0)[0], noise(0)[1], {"groups": np.zeros(60)}, "groups must be at least two, got only"),
        (noise(0)[0], noise(0)[1], {"groups": np.zeros(59)}, "groups must hold one group per sequence of x"),
        (noise(0)[0], [["a"], 3.5] * 30, {}, "y must"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_whatever_brought_it(x, y, options, message: str | None) -> None:
    if message is None:
        message = r"x must hold at least 208 usable samples of 52 classes, .* got 200; .* task='real'"
        x, y = x[:200], y[:200]
    with pytest.raises((ValueError, TypeError), match=message):
        diagnose(x, y, **options)
