"""From samples to a saved model: splits that leak nothing, training that resumes, a file that predicts the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib import SequenceModel
from tdi_lib.app.cli import ROOT, cli
from tdi_lib.app.train import Trained, _Sets, _split, interval, train
from tdi_lib.data.synthetic import four_tones
from tdi_lib.readout import ridge_readout_
from tdi_lib.tdi import tdi_init_
from tdi_lib.training import fit

SMALL = {"d_model": 12, "d_state": 8, "max_steps": 40, "progress": False}
SIZES = ["--d-model", "12", "--d-state", "8", "--max-steps", "40"]


def tones(n: int = 100, seed: int = 0, amplitude: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    return four_tones(n, amplitude=amplitude, generator=np.random.default_rng(seed), length=64)


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), n_groups=st.integers(15, 40), n_classes=st.integers(2, 4), real=st.booleans())
def test_no_group_is_split_and_every_class_is_trained_on(seed: int, n_groups: int, n_classes: int, real: bool) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(rng.permutation(n_groups), rng.integers(1, 6, size=n_groups))
    labels = (np.arange(n_groups) % n_classes)[groups]
    targets = rng.normal(size=n_groups)[groups] if real else labels
    place = _split(targets, groups, rng, n_test=1)
    assert set(place) == {"training", "validation", "test"}
    assert all(len(set(place[groups == group])) == 1 for group in range(n_groups))
    if not real:
        assert set(labels[place == "training"]) == set(range(n_classes))


def test_copies_and_windows_stay_on_one_side() -> None:
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(50), 6)
    x, y = rng.normal(size=(50, 40))[source], rng.integers(2, size=50)[source]
    path = rng.normal(size=(30, 200))
    windows = np.concatenate([[each[a : a + 40] for a in range(0, 161, 10)] for each in path])
    of_path = np.repeat(np.arange(30), 17)
    labels = rng.integers(2, size=30)[of_path]
    for inputs, targets, owner, note in (
        (x, y, source, "250 exact copies"),
        (windows, labels, of_path, "30 stretches, each kept together"),
    ):
        order = rng.permutation(len(inputs))
        sets = _Sets.of(inputs[order], targets[order], None, None, "auto", None, 0)
        assert note in sets.notes[0]
        parts = [set(owner[order][index]) for index in sets.parts.values()]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(set(owner))


def test_it_is_the_parts_of_the_library_put_together() -> None:
    x, y = tones()
    trained = train(x, y, init="tdi", **SMALL)
    place = _split(y, np.arange(100), np.random.default_rng(0), n_test=1)
    learn, choose = place == "training", place == "validation"
    z = (x - x[learn].mean()) / x[learn].std()
    generator = torch.Generator().manual_seed(0)
    model = SequenceModel(
        1, 4, d_model=12, d_state=8, n_layers=1, pooling="statistics", zero_branches=True, generator=generator
    )
    tdi_init_(model, z[learn][:, :, None], y[learn], readout="ridge", generator=generator)
    before = model.decoder.weight.clone()
    model.decoder.requires_grad_(False)
    sets = {"x_val": z[choose][:, :, None], "y_val": y[choose]}
    fit(model, z[learn][:, :, None], y[learn], **sets, max_steps=40, evaluate_every=20, patience=5, progress=False)
    assert same(model, trained.model) and torch.equal(before, trained.model.decoder.weight)
    guess = model(torch.as_tensor(z[place == "test"][:, :, None], dtype=torch.float32)).argmax(1).numpy()
    assert trained.recipe["scores"]["accuracy"] == pytest.approx((guess == y[place == "test"]).mean())


def test_the_samples_choose_the_initialization() -> None:
    """Two close tones of random phase need narrow filters; labels that mean nothing need none."""
    rng = np.random.default_rng(0)
    y = np.arange(150) % 2
    phase = 2 * np.pi * rng.random((150, 1))
    x = np.sin(np.where(y, 2.0, 2.1)[:, None] * np.arange(96) + phase) + rng.normal(size=(150, 96))
    sure = train(x, y, **(SMALL | {"max_steps": 20}))
    assert sure.recipe["init"] != "lin" and any("is the lowest" in note for note in sure.recipe["notes"])
    default = train(x, y, init="lin", **(SMALL | {"max_steps": 20}))
    assert sure.recipe["training"]["start"] < default.recipe["training"]["start"]
    blind = train(x, rng.permutation(y), **(SMALL | {"max_steps": 20}))
    assert blind.recipe["init"] == "lin" and any("default is kept" in note for note in blind.recipe["notes"])
    few = train(x[:24], y[:24], **(SMALL | {"max_steps": 20}))
    assert few.recipe["init"] == "lin" and "too few samples or groups" in few.recipe["notes"][-1]


@pytest.mark.parametrize("kind", ["classes", "real", "two"])
def test_what_is_saved_predicts_the_same(tmp_path: Path, kind: str) -> None:
    x, y = tones()
    lengths = np.random.default_rng(0).integers(40, 65, size=100)
    x = np.where(np.arange(64) < lengths[:, None], x, np.nan)
    targets = {"classes": np.array(["a", "b", "c", "d"])[y], "real": y + 0.25, "two": np.eye(4)[y][:, :2] * 3 + 1}[kind]
    trained = train(x, targets, **SMALL)
    trained.save(tmp_path / "model.safetensors")
    again = Trained.load(tmp_path / "model.safetensors")
    assert same(trained.model, again.model) and again.recipe == json.loads(json.dumps(trained.recipe))
    np.testing.assert_array_equal(trained.predict(x), again.predict(x))
    predicted = again.predict(x)
    if kind == "classes":
        assert (predicted == targets).mean() > 0.8 and again.classes == ("a", "b", "c", "d")
        np.testing.assert_allclose(again.outputs(x).sum(axis=1), 1)
    else:
        assert predicted.shape == targets.shape
        assert np.mean((predicted - targets) ** 2) < 0.6 * targets.var(axis=0).mean()
    # padding says nothing
    np.testing.assert_allclose(again.outputs(x[:1, : lengths[0]]), again.outputs(x[:1]), atol=1e-5)


def test_a_test_set_and_the_comparison_are_what_they_say() -> None:
    x, y = tones(80)
    other = tones(40, seed=1)
    trained = train(x, y, test=other, compare=True, **SMALL)
    recipe = trained.recipe
    assert recipe["n"]["test"] == 40 and recipe["n"]["training"] + recipe["n"]["validation"] == 80
    p = trained.outputs(other[0])[np.arange(40), other[1]]
    assert recipe["scores"]["loss"] == pytest.approx(-np.log(p).mean(), rel=1e-5)
    compared = recipe["compared"]
    assert compared["difference"] == pytest.approx(recipe["scores"]["loss"] - compared["loss"])
    assert compared["loss"] == pytest.approx(train(x, y, test=other, init="lin", **SMALL).recipe["scores"]["loss"])
    assert re.search(r"compare +test loss [\d.]+; of S4D-Lin, trained alike", trained.text())


def test_the_interval_widens_by_what_belongs_together() -> None:
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(20) < 0.7, 10).astype(float)
    alone, together = interval(right, np.arange(200)), interval(right, np.repeat(np.arange(20), 10))
    assert together[0] < alone[0] < right.mean() < alone[1] < together[1]
    low, high = interval(np.ones(10), np.arange(10))
    assert high == 1 and low == pytest.approx(10 / (10 + 1.96**2))  # Wilson's, in closed form


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [20, 60])
def test_a_training_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path: Path, after: int) -> None:
    x, y = tones()
    part = tmp_path / "part"

    def run(stop: int | None, checkpoint: Path | None) -> tuple[SequenceModel, object]:
        def watch(step: int, _: SequenceModel) -> None:
            if step == stop:
                raise Interrupted

        model = SequenceModel(1, 4, d_model=6, d_state=4, n_layers=1, pooling="statistics",
                              generator=torch.Generator().manual_seed(0))  # fmt: skip
        ridge_readout_(model, x[:80, :, None], y[:80])
        sets = {"x_val": x[80:, :, None], "y_val": y[80:], "max_steps": 100, "evaluate_every": 20}
        return model, fit(model, x[:80, :, None], y[:80], **sets, progress=False, watch=watch, checkpoint=checkpoint)

    whole, told = run(None, None)
    with pytest.raises(Interrupted):
        run(after, part)
    resumed, again = run(None, part)
    assert same(whole, resumed) and again.history == told.history and again.best_step == told.best_step
    assert same(whole, run(None, part)[0])  # nothing is left to do
    with pytest.raises(ValueError, match="checkpoint must be of this training"):
        fit(whole, x[:80, :, None], y[:80], x_val=x[80:, :, None], y_val=y[80:], progress=False, checkpoint=part)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x, y = tones(120)
    frame = pd.DataFrame(x.round(4), columns=[f"t{i}" for i in range(64)])
    frame.insert(0, "fault", np.array(["none", "belt", "gear", "leak"])[y])
    frame.insert(1, "machine", [f"m{k // 4}" for k in range(120)])
    path = tmp_path_factory.mktemp("train data") / "recordings.csv"
    frame.to_csv(path, index=False)
    return path


def run(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="tdi")


def test_train_and_predict_from_the_command_line(table: Path, tmp_path: Path) -> None:
    model, predicted = tmp_path / "model.safetensors", tmp_path / "predicted.csv"
    done = run("train", table, "--target", "fault", "--group", "machine", "-o", model, "--compare", *SIZES)
    assert done.exit_code == 0, done.output
    assert re.search(r"accuracy [\d.]+ % \(95 % interval \d+ to \d+", done.stdout) and "confusion" in done.stdout
    assert list(tmp_path.iterdir()) == [model]  # no checkpoint is left
    said = run("predict", model, table, "-o", predicted)
    assert said.exit_code == 0 and "120 predictions" in said.stdout, said.output
    frame = pd.read_csv(predicted, keep_default_na=False)
    assert (frame["predicted"] == frame["target"]).mean() > 0.8
    np.testing.assert_allclose(frame.filter(like="p_").sum(axis=1), 1, atol=5e-4)
    # without the target's and the group's column the predictions are the same
    bare = tmp_path / "bare.csv"
    pd.read_csv(table).drop(columns=["fault"]).to_csv(bare, index=False)
    again = run("predict", model, bare)
    assert again.exit_code == 0, again.output
    assert [line.split(",")[1] for line in again.stdout.split()[1:]] == frame["predicted"].tolist()
    as_json = json.loads(
        run("train", table, "--target", "fault", "--group", "machine", "-o", model, "--json", *SIZES).stdout
    )
    assert as_json["scores"]["accuracy"] > 0.5 and as_json["source"]["file"] == "recordings.csv"


def test_the_same_command_goes_on_after_an_interrupt(table: Path, tmp_path: Path, monkeypatch) -> None:
    words = ["train", table, "--target", "fault", "--drop", "machine", *SIZES, "-o"]
    assert run(*words, tmp_path / "whole.safetensors").exit_code == 0
    saved = []

    def interrupt(self: object, epoch: int, real=None) -> None:
        saved.append(epoch)
        real(self, epoch)
        raise KeyboardInterrupt

    from tdi_lib.training import _State

    real = _State.save
    with monkeypatch.context() as patch:
        patch.setattr(_State, "save", lambda self, epoch: interrupt(self, epoch, real))
        stopped = run(*words, tmp_path / "model.safetensors")
    assert stopped.exit_code == 1 and "the same command goes on" in stopped.stderr and saved == [1]
    assert (tmp_path / "model.safetensors.part").exists() and not (tmp_path / "model.safetensors").exists()
    assert run(*words, tmp_path / "model.safetensors").exit_code == 0
    whole, resumed = (Trained.load(tmp_path / f"{name}.safetensors") for name in ("whole", "model"))
    assert same(whole.model, resumed.model) and not (tmp_path / "model.safetensors.part").exists()


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (*tones(12), {}, "x must leave at least 8 samples for training"),
        (tones()[0], np.zeros(100), {}, "y must hold"),
        (tones()[0], [*"abc"] + ["d"] * 97, {}, "y must hold at least 3 samples of every class"),
        (*tones(), {"init": "magic"}, "init must be one of auto, tdi, flat, lin"),
        (*tones(), {"test": (np.ones((5, 64, 2)), np.zeros(5))}, r"test must have the 1 channel"),
        (*tones(), {"groups": np.zeros(99)}, r"groups must hold one group per sequence"),
        (tones()[0], [7] * 50 + [8] * 50, {"classes": ("a", "b")}, "y must be codes of the 2 classes"),
    ],
)
def test_bad_input_is_named(x, y, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(x, y, **(SMALL | options))


def test_other_weights_are_no_model(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name, message in (("other", "expected a model that tdi train wrote"), ("text", "is not a safetensors file")):
        with pytest.raises(ValueError, match=message):
            Trained.load(tmp_path / f"{name}.safetensors")
        assert run("predict", tmp_path / f"{name}.safetensors", tmp_path / "text.safetensors").exit_code == 2


def readme_blocks() -> dict[str, list[str]]:
    text = (ROOT / "README.md").read_text("utf-8").partition("## On your own data")[2].partition("\n## ")[0]
    blocks: dict[str, list[str]] = {}
    for language, body in re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL):
        blocks.setdefault(language, []).append(body)
    return blocks


def test_the_readme_runs_as_it_is_written(table: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(table, keep_default_na=False)
    frame.to_csv(tmp_path / "recordings.csv", index=False)
    frame.drop(columns="fault").to_csv(tmp_path / "new.csv", index=False)
    blocks = readme_blocks()
    lines = [line for body in blocks["bash"] for line in body.splitlines() if line.startswith("tdi ")]
    assert {line.split()[1] for line in lines} == {"diagnose", "init", "train", "predict"}
    for line in lines:
        command = [sys.executable, "-m", "tdi_lib", *line.partition("  #")[0].split()[1:]]
        command += ["--max-steps", "20"] if command[3] == "train" else []
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert any(len(body.split("\n")) <= 7 and "train(" in body for body in blocks["python"])
    for body in blocks["python"]:
        done = subprocess.run([sys.executable, "-c", body], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_few_groups_of_unlike_size_leave_a_fifth_to_test() -> None:
    sizes = [120, 90, 70, 55, 47, 40, 5]
    groups = np.repeat(np.arange(7), sizes)
    labels = np.arange(len(groups)) % 5
    for seed in range(20):
        place = _split(labels, groups, np.random.default_rng(seed), n_test=1)
        shares = [np.mean(place == name) for name in ("validation", "test")]
        assert all(0.08 < share < 0.3 for share in shares)
        assert all(len(set(place[groups == group])) == 1 for group in range(7))
