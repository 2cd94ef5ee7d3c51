"""Trials and the recorded studies."""

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from tdi_lib.trials import INITS, STUDIES, Trial, find_trial, read_study, record_study, run_trial

TINY = Trial("mnist5k", 60, 0, "lin", d_model=4, d_state=4, n_layers=1, max_steps=25, batch_size=8)


def test_a_trial_repeats_itself_and_inits_are_paired() -> None:
    rows = {init: run_trial(dataclasses.replace(TINY, init=init)) for init in ("lin", "flat", "tdi")}
    again = run_trial(dataclasses.replace(TINY, init="tdi"))
    timing = {"seconds", "init_seconds"}
    assert {k: v for k, v in rows["tdi"].items() if k not in timing} == {
        k: v for k, v in again.items() if k not in timing
    }
    assert len({row["loss"] for row in rows.values()}) == 3
    assert rows["lin"]["init_seconds"] == 0 < rows["tdi"]["init_seconds"]
    assert rows["tdi"]["spectral_start"] < rows["lin"]["spectral_start"]
    assert {row["method"] for row in rows.values()} == {rows["lin"]["method"]}  # one yardstick


def test_unknown_init_is_named() -> None:
    with pytest.raises(ValueError, match=r"trial\.init must be one of lin"):
        run_trial(dataclasses.replace(TINY, init="best"))


def test_record_runs_only_what_is_missing(tmp_path: Path) -> None:
    """Real worker processes; an interrupted study goes on where it was."""
    file = tmp_path / "study.parquet"
    first = dataclasses.replace(TINY, max_steps=25)
    second = dataclasses.replace(TINY, seed=1)
    record_study([first], file, workers=1)
    before = find_trial(read_study(file), first)
    table = record_study([second, first], file, workers=2)
    assert len(table) == 2 and [p.name for p in tmp_path.iterdir()] == ["study.parquet"]
    assert find_trial(read_study(file), first) == before  # seconds included: it was not run again
    origin = json.loads(before["provenance"])
    assert {"commit", "device", "python", "torch", "numpy", "scipy"} <= set(origin)
    with pytest.raises(KeyError, match="not among the 2 recorded"):
        find_trial(table, dataclasses.replace(TINY, seed=2))


@pytest.mark.parametrize("name", STUDIES)
def test_recorded_studies_are_complete(name: str) -> None:
    """Every trial of a study is in the repository's record, once, with its provenance and finite scores."""
    table = read_study(Path(__file__).parents[1] / "results" / f"{name}.parquet")
    for trial in STUDIES[name]:
        find_trial(table, trial)
    assert len(table) == len(set(STUDIES[name])) == len(STUDIES[name])
    scores = table[["loss", "accuracy", "calibration", "spectral_start", "spectral_end"]]
    assert scores.notna().all(axis=None) and (scores >= 0).all(axis=None)
    assert table.provenance.map(lambda text: json.loads(text)["commit"] != "unknown").all()
    assert set(table.init) <= set(INITS) and isinstance(table, pd.DataFrame)
