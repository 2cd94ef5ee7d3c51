"""Trials and the recorded studies."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch

from tdi_lib.data import sets
from tdi_lib.records import Store, provenance
from tdi_lib.ssm import SequenceModel
from tdi_lib.study.analysis import find_trial, read_study, with_gain
from tdi_lib.study.plans import DEEP_SIZES, INITS, STUDIES, UNTRAINED, Trial
from tdi_lib.study.sweep import forecast_config, main, record_study, replay
from tdi_lib.study.trial import (
    _fit_alone,
    _prepare,
    autocorrelation_steps,
    forecast_trial,
    load_set,
    run_trial,
    run_trials,
)
from tdi_lib.tdi import compare_features, tdi_init_
from tdi_lib.training import fit_many

TINY = Trial("mnist5k", 60, 0, "lin", d_model=4, d_state=4, n_layers=1, max_steps=25, batch_size=8)


TIMING = {"seconds", "init_seconds"}


def without_timing(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in TIMING}


def test_a_trial_repeats_itself_and_inits_are_paired() -> None:
    rows = {init: run_trial(dataclasses.replace(TINY, init=init)) for init in ("lin", "flat", "tdi")}
    again = run_trial(dataclasses.replace(TINY, init="tdi"))
    assert without_timing(rows["tdi"]) == without_timing(again)
    assert len({row["loss"] for row in rows.values()}) == 3
    assert rows["lin"]["init_seconds"] == 0 < rows["tdi"]["init_seconds"]
    assert rows["tdi"]["spectral_start"] < rows["lin"]["spectral_start"]
    assert {row["method"] for row in rows.values()} == {rows["lin"]["method"]}  # one yardstick


@pytest.fixture
def padded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trial:
    """A trial on three classes of sequences of 20 to 64 steps."""

    def read(_: object) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        x = rng.normal(2, 3, (140, 64, 1)).cumsum(axis=1).astype(np.float32)
        x[np.arange(64) >= rng.integers(20, 65, 140)[:, None]] = np.nan
        y = np.arange(140) % 3
        return {
            "x_train": x[:100],
            "y_train": y[:100],
            "x_test": x[100:],
            "y_test": y[100:],
            "classes": np.array(list("abc")),
        }

    made = sets._Spec(sets.Shape(100, 40, 64, 1, 3), ((),), read, "none needed", "none")
    monkeypatch.setitem(sets._SETS, "padded", made)
    monkeypatch.setenv("TDI_DATA_DIR", str(tmp_path))
    load_set.cache_clear()
    return dataclasses.replace(TINY, dataset="padded")


@pytest.mark.parametrize("init", ["lin", "tdi"])
def test_sets_with_padded_sequences_are_trained_too(padded: Trial, init: str) -> None:
    """Scaled by what is inside, scored by what is inside; together with others as well."""
    trial = dataclasses.replace(padded, init=init)
    row = run_trial(trial)
    # an independent path: weights of a training of our own, every test sequence cut and looked at alone
    again, losses = _prepare(trial), []
    _fit_alone(again.model, again.data, trial, trial.max_steps)
    x_test = (again.source.x_test - again.scale[0]) / again.scale[1]
    for sequence, label in zip(x_test, again.source.y_test, strict=True):
        whole = torch.tensor(sequence[np.isfinite(sequence[:, 0])])[None]
        with torch.no_grad():
            losses.append(torch.nn.functional.cross_entropy(again.model(whole), torch.tensor([label])).item())
    assert np.isclose(row["loss"], np.mean(losses), rtol=1e-4)
    beside = run_trials([trial, dataclasses.replace(trial, seed=1)])[0]
    assert isinstance(beside, dict) and beside["together"] == 2
    assert beside["loss"] == pytest.approx(row["loss"], rel=1e-4) and beside["best_step"] == row["best_step"]
    prepared = _prepare(trial)
    x, _, x_val, _ = prepared.data
    assert np.isnan(x).any() and np.isnan(x_val).any()
    assert np.isclose(np.nanmean(x), 0, atol=1e-4) and np.isclose(np.nanstd(x), 1, atol=1e-4)


def test_what_padded_sets_cannot_do_is_said(padded: Trial) -> None:
    with pytest.raises(ValueError, match="^trial.pretrain_steps must be 0"):
        run_trial(dataclasses.replace(padded, pretrain_steps=5))
    with pytest.raises(ValueError, match="^guard must be False"):
        run_trial(dataclasses.replace(padded, init="guarded"))


def test_forecasts_look_at_nothing_but_the_training_part() -> None:
    """Two ways of asking, both repeatable; what the untrained model says is what its pooled outputs say."""
    trial = dataclasses.replace(TINY, d_model=8)
    row = forecast_trial(trial)
    again = forecast_trial(trial)
    assert {k: v for k, v in row.items() if k != "forecast_seconds"} == {
        k: v for k, v in again.items() if k != "forecast_seconds"
    }
    prepared = _prepare(trial)
    x, y = prepared.data[:2]
    guard = tdi_init_(
        _prepare(trial).model, x, y, guard=True, generator=torch.Generator().set_state(prepared.drawn)
    ).guard
    assert guard is not None and np.isclose(row["layer_difference"], guard.difference)
    assert np.isclose(row["mismatch"], prepared.start["alignment"][0])
    # an independent path: decoder cut off by hand
    model = prepared.model
    model.decoder = torch.nn.Identity()
    with torch.no_grad():
        features = model(torch.tensor(x, dtype=torch.float32)).double().numpy()
    half = compare_features(lambda *_: lambda _x: features, lambda *_: lambda _x: features, x, y)
    assert np.isclose(row["model_base"], half.base) and half.difference == 0
    with pytest.raises(ValueError, match=r"trial.init must be lin"):
        forecast_trial(dataclasses.replace(TINY, init="tdi"))


def test_a_commit_is_dirty_when_code_was_changed_not_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    for name in ("tdi_lib/records.py", "results/study.parquet", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("once")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    monkeypatch.setattr("tdi_lib.records.__file__", str(tmp_path / "tdi_lib" / "records.py"))
    clean = provenance.__wrapped__()["commit"]
    assert len(clean) == 12
    for name, mark in (("results/study.parquet", ""), ("notes.txt", ""), ("README.md", "-dirty")):
        (tmp_path / name).write_text("again")
        assert provenance.__wrapped__()["commit"] == clean + mark


def test_forecasts_are_recorded_as_trials_are(tmp_path: Path) -> None:
    table = record_study([TINY], tmp_path / "f.parquet", folder=tmp_path / "s", n_workers=0, function=forecast_config)
    row = find_trial(table, TINY)
    assert row["model_error"] > 0 and json.loads(row["provenance"])["commit"]
    with pytest.raises(ValueError, match="together must be 1"):
        record_study([TINY], tmp_path / "g.parquet", together=2, function=forecast_config)


def test_a_row_holds_what_a_study_needs() -> None:
    trial = dataclasses.replace(TINY, init="real", n_layers=2, max_steps=50)
    row = run_trial(trial)
    assert Trial(**{field.name: row[field.name] for field in dataclasses.fields(Trial)}) == trial
    assert [entry["step"] for entry in row["history"]] == [25, 50] and row["steps"] == 50
    assert row["best_step"] == min(row["history"], key=lambda entry: entry["val_loss"])["step"]
    for when in ("start", "end"):
        assert len(row[f"alignment_{when}"]) == 2 and row[f"alignment_{when}"][0] == row[f"spectral_{when}"]
        assert all(0 <= loss <= 2 for loss in row[f"alignment_{when}"])
    assert row["response_start"] != row["response_end"] and row["together"] == 1
    # by its own path: the draw of the initial values, then the FFT of a kernel that has died out, at 0 to pi in 64
    model = SequenceModel(
        1, 10, d_model=4, d_state=4, n_layers=2, init="real", generator=torch.Generator().manual_seed(trial.seed)
    )
    kernel = model.double().ssms[0].kernel(63 * 2 * 200).detach().numpy()
    expected = (np.abs(np.fft.rfft(kernel, axis=1)) ** 2).mean(axis=0)[::200]
    np.testing.assert_allclose(row["response_start"], expected, rtol=1e-3)
    assert all(float(f"{value:.4g}") == value for value in row["response_end"])
    json.dumps(row, allow_nan=False)


def test_every_init_starts_from_its_own_place() -> None:
    starts = {init: _prepare(dataclasses.replace(TINY, init=init)).model.ssms[0] for init in INITS}
    a = {init: ssm.A.detach() for init, ssm in starts.items()}
    assert torch.allclose(a["scaled"].imag[0], 3 * torch.pi * torch.arange(2.0))
    assert torch.allclose(a["scaled"].real, torch.tensor(-0.5))
    assert torch.equal(a["real"].imag, torch.zeros(4, 2)) and torch.allclose(a["real"].real[0], -torch.arange(1.0, 3))
    assert torch.equal(a["acf"], a["lin"]) and not torch.equal(starts["acf"].dt, starts["lin"].dt)
    kernels = torch.stack([ssm.kernel(50).detach() for init, ssm in starts.items() if init != "guarded"])
    assert len(torch.unique(kernels.flatten(1), dim=0)) == len(INITS) - 1
    guarded = starts["guarded"].kernel(50)  # either ours or the default
    assert any(torch.equal(guarded, starts[init].kernel(50)) for init in ("tdi", "lin"))


def test_a_random_start_shares_all_but_the_frequencies() -> None:
    default, random = (_prepare(dataclasses.replace(TINY, init=init, n_layers=2)).model for init in ("lin", "random"))
    other = random.state_dict()
    differing = {name for name, value in default.state_dict().items() if not torch.equal(value, other[name])}
    assert len(differing) == 2 and all(name.endswith("A_imag") for name in differing)
    assert not torch.equal(random.ssms[0].A_imag, random.ssms[1].A_imag)


def test_steps_follow_the_range_and_the_autocorrelation() -> None:
    wide = dataclasses.replace(TINY, dt_min=0.2, dt_max=0.3, d_model=64)
    dt = _prepare(wide).model.ssms[0].dt
    assert 0.2 <= dt.min() < 0.21 < 0.29 < dt.max() <= 0.3
    acf = _prepare(dataclasses.replace(wide, init="acf"))
    x = acf.data[0][:, :, 0].astype(float)  # 784 steps; the Toeplitz matrix of the autocorrelation, all of it
    lags = np.array([np.mean(x[:, lag:] * x[:, : x.shape[1] - lag]) for lag in range(x.shape[1])])
    center = (x.shape[1] * np.linalg.eigvalsh(scipy.linalg.toeplitz(lags))[-1]) ** -0.5
    low, high = autocorrelation_steps(x, ratio=1.5)
    np.testing.assert_allclose([low, high], center * 1.5 ** np.array([-0.5, 0.5]), rtol=1e-6)
    dt = acf.model.ssms[0].dt
    assert low <= dt.min() < 1.02 * low < 0.98 * high < dt.max() <= high
    white = np.random.default_rng(0).normal(size=(100, 400))
    assert np.isclose(np.sqrt(np.prod(autocorrelation_steps(white))), 400**-0.5, rtol=0.3)
    with pytest.raises(ValueError, match="ratio must be"):
        autocorrelation_steps(white, ratio=0.5)


def test_layers_are_those_asked_for() -> None:
    trial = dataclasses.replace(TINY, init="tdi", n_layers=2)
    plain = _prepare(dataclasses.replace(trial, init="lin")).model
    for layers, moved in (("first", [0]), ("1", [0]), ("2", [1]), ("all", [0, 1]), ("each", [0, 1])):
        model = _prepare(dataclasses.replace(trial, layers=layers)).model
        pairs = zip(model.ssms, plain.ssms, strict=True)
        assert [i for i, (a, b) in enumerate(pairs) if not torch.equal(a.A_imag, b.A_imag)] == moved
    with pytest.raises(ValueError, match=r"trial\.layers must be first with init lin, got 'all'"):
        run_trial(dataclasses.replace(TINY, layers="all"))


def test_trials_together_give_the_rows_of_trials_alone() -> None:
    """Up to float32, over 50 steps. AdamW makes much of gradients that are all rounding: see fit_many's own test."""
    trials = [
        dataclasses.replace(TINY, max_steps=50),
        dataclasses.replace(TINY, max_steps=50, init="tdi", seed=1, n=90),
        dataclasses.replace(TINY, max_steps=25),  # a group of its own
        dataclasses.replace(TINY, max_steps=50, n=10**6),  # more than there are
        dataclasses.replace(TINY, max_steps=50, init="inv", seed=2, n=40),
    ]
    together = run_trials(trials)
    assert isinstance(together[3], ValueError) and "n must be at most" in str(together[3])
    del trials[3], together[3]
    assert [row["together"] for row in together] == [3, 3, 1, 3]
    for trial, row in zip(trials, together, strict=True):
        alone = run_trial(trial)
        assert alone.keys() == row.keys() and row["best_step"] == alone["best_step"]
        for name in alone.keys() - TIMING - {"together"}:
            if name == "history":
                pairs = zip(row[name], alone[name], strict=True)
                assert all(a == pytest.approx(b, rel=1e-4) for a, b in pairs)
            elif isinstance(alone[name], list | float):
                assert row[name] == pytest.approx(alone[name], rel=2e-3, abs=1e-5), name
            else:
                assert row[name] == alone[name], name


def test_a_batch_that_fails_as_a_whole_is_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is too large for the memory would be, or one of which a single trial stops all."""

    def too_large(models: list, *data: object, **options: object) -> list:
        if len(models) > 1:
            raise MemoryError("all at once")
        return fit_many(models, *data, **options)

    monkeypatch.setattr("tdi_lib.study.trial.fit_many", too_large)
    alone = run_trial(TINY)
    broken = dataclasses.replace(TINY, n=10**6)
    first, second, third = run_trials([TINY, broken, dataclasses.replace(TINY, seed=1)])
    assert isinstance(second, ValueError) and isinstance(first, dict) and isinstance(third, dict)
    assert first["loss"] == alone["loss"] and first["together"] == 1 and third["seed"] == 1


def test_pretraining_teaches_the_trunk_to_predict_and_nothing_else() -> None:
    trial = dataclasses.replace(TINY, dataset="tones-25", pretrain_steps=200, d_model=8, d_state=8, n_layers=2)
    plain = _prepare(dataclasses.replace(trial, pretrain_steps=0))
    taught, again = _prepare(trial), _prepare(trial)
    before, after = plain.model.state_dict(), taught.model.state_dict()
    for name, value in after.items():
        assert torch.equal(value, again.model.state_dict()[name])
        stays = name.startswith("decoder.") or name.endswith("B_real_imag")  # B is no parameter
        assert torch.equal(value, before[name]) == stays, name
    assert taught.init_seconds > 0 == plain.init_seconds
    # what the trunk knows of the next value, by least squares on its last layer's output for new sequences
    x = torch.as_tensor(taught.source.x_test[:40] / taught.scale[1], dtype=torch.float32)
    missed = {}
    for when, model in (("before", plain.model), ("after", taught.model)):
        seen = []
        model.norms[-1].register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
        with torch.no_grad():
            model(x)
        features = seen[0][:, :-1].reshape(-1, 8).double().numpy()
        features = np.column_stack([features, np.ones(len(features))])
        target = x[:, 1:].reshape(-1).double().numpy()
        missed[when] = np.linalg.lstsq(features, target, rcond=None)[1][0] / len(target)
    assert missed["after"] < 0.97 * missed["before"]  # random filters are no bad features to begin with


def test_unknown_init_is_named() -> None:
    with pytest.raises(ValueError, match=r"trial\.init must be one of lin"):
        run_trial(dataclasses.replace(TINY, init="best"))


def test_record_runs_only_what_is_missing(tmp_path: Path) -> None:
    """An interrupted study goes on where it was, and what was recorded stays, to the byte."""
    file, store = tmp_path / "study.parquet", tmp_path / "store"
    first, second, third = (dataclasses.replace(TINY, seed=seed) for seed in range(3))
    record_study([first], file, folder=store, n_workers=0, progress=False)
    before = find_trial(read_study(file), first)
    shutil.rmtree(store)  # a fresh clone has the file alone
    table = record_study([second, first], file, folder=store, n_workers=1, progress=False)  # a real worker
    assert len(table) == 2 and sorted(p.name for p in tmp_path.iterdir()) == ["store", "study.parquet"]
    assert find_trial(read_study(file), first) == before  # seconds included: it was not run again
    origin = json.loads(before["provenance"])
    assert {"commit", "device", "python", "torch", "numpy", "scipy"} <= set(origin)
    with pytest.raises(KeyError, match="not among the 2 recorded"):
        find_trial(table, third)
    broken = dataclasses.replace(TINY, n=10**6)
    with pytest.warns(UserWarning, match="1 trials failed, see"):
        table = record_study([first, third, broken], file, folder=store, together=8, n_workers=0, progress=False)
    assert len(table) == 3 and find_trial(table, first) == before and find_trial(table, third)["together"] == 1
    with pytest.warns(UserWarning, match="1 trials failed"), pytest.raises(RuntimeError, match="none of 1 left a row"):
        record_study([broken], tmp_path / "none.parquet", folder=tmp_path / "none", n_workers=0, progress=False)


def test_a_stale_store_does_not_replace_what_is_published(tmp_path: Path) -> None:
    file, folder = tmp_path / "study.parquet", tmp_path / "store"
    row = dataclasses.asdict(TINY) | {"loss": 0.5, "provenance": "{}", "history": []}
    pd.DataFrame([row]).to_parquet(file)
    Store(folder).put(dataclasses.asdict(TINY), {"loss": 0.7, "provenance": '{"commit": "older"}'})
    with pytest.raises(ValueError, match="folder must not hold another record of a trial than"):
        record_study([TINY], file, folder=folder, n_workers=0)
    assert find_trial(read_study(file), TINY)["loss"] == 0.5


def test_an_older_record_is_completed(tmp_path: Path) -> None:
    """Rows from before there were layers, dt_min and history are those of the defaults, and stay beside new ones."""
    old = pd.DataFrame([{k: v for k, v in dataclasses.asdict(TINY).items() if k not in {"layers", "dt_min", "dt_max"}}])
    file = tmp_path / "study.parquet"
    old.assign(loss=0.5, provenance="{}").to_parquet(file)
    assert find_trial(read_study(file), TINY)["loss"] == 0.5
    table = record_study([TINY, dataclasses.replace(TINY, seed=1)], file, folder=tmp_path / "s", n_workers=0)
    assert find_trial(table, TINY)["loss"] == 0.5 and len(table) == 2
    assert list(table.history.map(bool)) == [False, True]


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded is not run: the whole of a study, from its file, in a moment."""
    file, original = tmp_path / "tones.parquet", Path(__file__).parents[1] / "results" / "tones.parquet"
    shutil.copy(original, file)
    monkeypatch.chdir(tmp_path)
    assert main(["tones", str(file), "--workers", "0", "--together", "4"]) == 0
    assert (tmp_path / "_build" / "sweeps" / "tones").is_dir()
    pd.testing.assert_frame_equal(read_study(file), read_study(original), check_dtype=False)


def test_a_notebook_replays_what_is_recorded_or_runs_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdi_lib.study.sweep.STUDIES", {"tiny": [TINY]})
    results, row = tmp_path / "results", dataclasses.asdict(TINY) | {"provenance": "{}", "history": []}
    results.mkdir()
    pd.DataFrame([row | {"loss": 0.5}]).to_parquet(results / "tiny.parquet")
    assert replay("tiny", results=results).loss.tolist() == [0.5]
    anew = replay("tiny", "full", results=results)
    assert anew.loss.tolist() == [run_trial(TINY)["loss"]] and (tmp_path / "_build" / "full" / "tiny.parquet").exists()
    pd.DataFrame([row | {"loss": 0.6}]).to_parquet(results / "tiny-gpu.parquet")
    assert replay("tiny", results=results).loss.tolist() == [0.6]
    with pytest.raises(ValueError, match="study must be"):
        replay("tini", results=results)


def test_gains_are_against_the_partner_of_the_same_seed() -> None:
    table = read_study(Path(__file__).parents[1] / "results" / "low_data.parquet")
    gains = with_gain(table)
    assert len(gains) == len(table) and (gains[gains.init == "lin"].gain == 0).all()
    for row in gains.sample(10, random_state=0).to_dict("records"):
        trial = Trial(**{field.name: row[field.name] for field in dataclasses.fields(Trial)})
        base = find_trial(table, dataclasses.replace(trial, init="lin"))
        assert np.isclose(row["gain"], np.log(base["loss"] / row["loss"]))
        assert row["base_accuracy"] == base["accuracy"]
    assert gains.plain.all() and gains.validation.isna().all()  # this record holds no history
    wider = table[table.init == "lin"].assign(dt_max=1.0)  # another range of steps is no partner
    assert with_gain(wider).empty
    both = with_gain(pd.concat([table, wider]))
    assert both.plain.sum() == len(table) and len(both) == len(table) + len(wider)


def test_gains_know_the_validation_loss_and_what_else_was_varied() -> None:
    gains = with_gain(read_study(Path(__file__).parents[1] / "results" / "deep.parquet"))
    for row in gains.sample(10, random_state=0).to_dict("records"):
        by_step = {entry["step"]: entry["val_loss"] for entry in row["history"]}
        assert row["validation"] == by_step[row["best_step"]]
    other = (gains.dt_min != 1e-3) | (gains.dt_max != 0.1) | (gains.layers != "first") | (gains.pretrain_steps > 0)
    assert other.sum() > 0 and (gains.plain == ~other).all()


def test_the_study_for_a_gpu_holds_the_recorded_one() -> None:
    """So notebooks may read it instead; and it has what was asked for: five sizes, ten seeds, all starts."""
    full = set(STUDIES["deep-gpu"])
    assert full > set(STUDIES["deep"]) and len(full) == len(STUDIES["deep-gpu"])
    cells = {(t.dataset, t.n) for t in full if t.n_layers == 2 and t.max_steps > 50}
    assert [name for name in DEEP_SIZES if len([n for d, n in cells if d == name]) < 5] == ["freezer"]  # it has 150
    starts = {t.init for t in full if (t.dataset, t.n, t.seed) == ("watch", 50, 9)}
    assert starts == {"lin", "tdi", "half", "cross", "flat", "inv", "legs", "real", "random", "dfout", "scaled", "acf"}


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "deep-gpu"])
def test_recorded_studies_are_complete(name: str) -> None:
    """Every trial of a study is in the repository's record, once, with its provenance and finite scores."""
    table = read_study(Path(__file__).parents[1] / "results" / f"{name}.parquet")
    for trial in STUDIES[name]:
        find_trial(table, trial)
    assert len(table) == len(set(STUDIES[name])) == len(STUDIES[name])
    measured = {
        "forecasts": [
            "layer_base",
            "layer_rival",
            "layer_error",
            "model_base",
            "model_rival",
            "model_error",
            "mismatch",
        ],
        "closed_form": ["loss", "accuracy", "calibration", "left_out", "ridge"],
    }
    scores = table[measured.get(name, ["loss", "accuracy", "calibration", "spectral_start", "spectral_end"])]
    assert scores.notna().all(axis=None) and (scores >= 0).all(axis=None)
    assert table.provenance.map(lambda text: json.loads(text)["commit"] != "unknown").all()
    assert set(table.init) <= set(UNTRAINED if name == "closed_form" else INITS) and isinstance(table, pd.DataFrame)
