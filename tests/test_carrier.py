"""What carries the class: against data of which it is known, and against the record."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.signal

from tdi_lib.data import sets
from tdi_lib.study.carrier import accuracies, folds_of, in_words, log_bands, record, ridge_accuracy

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "results" / "carrier.parquet"


def made(carrier: str, n: int = 300, groups: np.ndarray | None = None) -> sets.SequenceDataset:
    """Two classes of noise: of two spectra, with a pulse of two signs, or different in loudness and level alone."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = rng.standard_normal((n, 100, 1))
    if carrier == "spectrum":
        x[:, 1:] += np.where(y == 1, 0.8, -0.8)[:, None, None] * x[:, :-1]
    elif carrier == "series":
        x[:, 40:60] += np.where(y == 1, 1, -1)[:, None, None]
    else:
        x = x * np.where(y == 1, 10, 1)[:, None, None] + y[:, None, None]
    x = x.astype(np.float32)
    return sets.SequenceDataset("made", x, y, x[:0], y[:0], ("0", "1"), "", "", "", groups)


@pytest.mark.parametrize(
    ("carrier", "words"),
    [
        ("spectrum", "the spectrum tells the classes, the series as it stands does not"),
        ("series", "the series as it stands tells the classes, the spectrum does not"),
        ("loudness", "neither tells much more than the largest class does"),
    ],
)
def test_carrier_is_found(carrier, words):
    row = accuracies(made(carrier))
    assert in_words(row["series"], row["spectrum"], row["largest"]) == words
    assert (row["n"], row["groups"], row["largest"]) == (300, 0, 0.5)
    if carrier != "loudness":
        assert row[carrier] > 0.9


def test_memory_of_a_source_does_not_count():
    """Each source has a spectrum of its own and one label: known sources are told at once, others are not."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), 20)
    wave = np.cos(0.2 * (1 + groups)[:, None] * np.arange(200) + rng.uniform(0, 6, (240, 1)))
    x = (wave + 0.1 * rng.standard_normal(wave.shape))[:, :, None].astype(np.float32)
    data = dataclasses.replace(made("series"), x_train=x, y_train=rng.permutation([0, 1] * 6)[groups])
    assert accuracies(data)["spectrum"] > 0.95
    row = accuracies(dataclasses.replace(data, groups=groups))
    assert row["groups"] == 12 and row["spectrum"] < 0.8


def test_folds_are_stratified_and_keep_groups():
    y = np.repeat([0, 1, 2], [50, 25, 10])
    for fold in range(5):
        assert np.bincount(y[folds_of(y, None) == fold]).tolist() == [10, 5, 2]
    groups = np.random.default_rng(0).integers(0, 20, 85)
    fold = folds_of(y, groups)
    assert all(len(set(fold[groups == group])) == 1 for group in np.unique(groups))
    assert np.ptp(np.bincount(fold)) <= 5


def test_bands_are_means_of_the_periodogram():
    x = np.random.default_rng(0).standard_normal((4, 40, 2))
    _, power = scipy.signal.periodogram(x, window="hann", axis=1)
    np.testing.assert_allclose(log_bands(x), np.log(power[:, 1:]).reshape(4, -1), rtol=1e-3)  # a line each: 20 bands
    _, power = scipy.signal.periodogram(x := np.repeat(x, 50, axis=1), window="hann", axis=1)
    bands = log_bands(x, 4).reshape(4, 4, 2)  # edges of 1,000 lines: 0, 62, 250, 562, 1000
    np.testing.assert_allclose(bands[:, 1], np.log(power[:, 63:251].mean(axis=1)), rtol=1e-3)
    short = np.where(np.arange(2000)[:, None] < 1000, x, np.nan)
    assert np.isfinite(log_bands(short)).all() and np.isfinite(log_bands(0 * x)).all()


def test_ridge_is_the_textbooks():
    """Its penalty is the one that leaves out best, found by leaving out one sample after the other."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((60, 8)), rng.integers(0, 3, 60)
    x[:, 0] += y
    fold = np.arange(60) % 5

    def fit(x: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
        """With a level of its own, which is not shrunk."""
        x, target = x - x.mean(0), target - target.mean(0)
        return np.linalg.solve(x.T @ x / 8 + ridge * np.eye(8), x.T @ target / 8)

    hits = 0
    for index in range(5):
        seen, mean, scale = fold != index, x[fold != index].mean(0), x[fold != index].std(0)
        a, b, target = (x[seen] - mean) / scale, (x[~seen] - mean) / scale, np.eye(3)[y[seen]]
        penalties, errors = np.trace(a @ a.T / 8) / 48 * np.logspace(-4, 3, 25), []
        for ridge in penalties:
            rest = [np.arange(48) != i for i in range(48)]
            left = [target[~r] - target[r].mean(0) - (a[~r] - a[r].mean(0)) @ fit(a[r], target[r], ridge) for r in rest]
            errors.append((np.array(left) ** 2).mean())
        guess = b @ fit(a, target, penalties[np.argmin(errors)]) + target.mean(0)
        hits += (guess.argmax(1) == y[~seen]).sum()
    assert ridge_accuracy(x, y, fold) == pytest.approx(hits / 60)


def test_record_goes_on_where_it_was(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        sets, "load", lambda name: loaded.append(name) or dataclasses.replace(made("series", 40), name=name)
    )
    record(tmp_path / "a.parquet", ["freezer", "forda"])
    record(tmp_path / "a.parquet", ["freezer", "watch"])
    assert loaded == ["freezer", "forda", "watch"]
    assert pd.read_parquet(tmp_path / "a.parquet").dataset.tolist() == ["forda", "freezer", "watch"]


def test_recorded_table_is_of_one_clean_commit_and_of_all_that_can_be_fetched():
    table = pd.read_parquet(RECORDED)
    assert set(table.dataset) == {name for name in sets.available() if not name.startswith("lra-")}
    (commit,) = {json.loads(text)["commit"] for text in table.provenance}
    assert commit not in ("unknown", "") and not commit.endswith("-dirty")
    values = table[["series", "spectrum", "largest"]].to_numpy()
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("name", ["octave", "insectepg", "freezer"])
def test_real_sets_measure_as_recorded(name):
    (recorded,) = pd.read_parquet(RECORDED).query("dataset == @name").to_dict("records")
    row = accuracies(sets.load(name))
    for key in ("series", "spectrum", "largest"):
        assert row[key] == pytest.approx(recorded[key], abs=0.03)  # a guess or two may hang on rounding


def test_page_tells_every_measured_set_in_words():
    spec = importlib.util.spec_from_file_location("data_table", ROOT / "book" / "_ext" / "data_table.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    rows = page.carriers(pd.read_parquet(RECORDED))
    assert len(rows) == 1 + len(pd.read_parquet(RECORDED)) and {len(row) for row in rows} == {5}
    assert next(row for row in rows if row[0] == "`octave`")[-1].startswith("the spectrum tells the classes")
    assert {len(row) for row in page.sizes()} == {7}
