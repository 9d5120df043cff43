"""Every format that advkit reads: a valid example, its reader, and what reading may give."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import scipy.io
import torch
from PIL import Image

from advkit import data
from advkit.analyses.discrepancy import read_oracle
from advkit.artifacts import analysis, artifact, checkpoint, hdf5, record, soft_labels
from advkit.artifacts.rows import Stored, loaded
from advkit.cli.common import stage
from advkit.cli.common.options import Call
from advkit.config import resolve, stored
from advkit.errors import AdvkitError
from advkit.evaluation import partial
from advkit.training import state
from advkit.training.run_folder import RunFolder
from tests.described import described
from tests.faults import _child
from tests.faults._mutate import mutated

Content = Any
"""What a reader gave, as plain text and bytes that can be compared."""


LONGEST = 1000
"""Characters of an error message; one that lists all options has some 700."""


def nothing(folder: Path, found: Content) -> str:
    """Accept any content: for formats whose reader checks all that can be checked."""
    return ""


@dataclass(frozen=True)
class Format:
    """One format.

    `make` writes a valid example of variant 0 or 1; `targets` are the files that get damaged.
    `read` gives the content. With `sound` None the format carries checksums, so that damage is
    refused or leaves the content as it was. Otherwise it cannot be told from other content, and
    `sound` says what is wrong with what was read ("" if nothing). `names` are words of which an
    error message has to hold one: the folder, unless it is about something else. `allowed` are
    beginnings of actions that reading an intact example takes.
    """

    name: str
    make: Callable[[Path, int], None]
    targets: tuple[str, ...]
    read: Callable[[Path], Content]
    sound: Callable[[Path, Content], str] | None = None
    names: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    prepare: Callable[[], None] = lambda: None

    def outcomes(self, folder: Path, cases: range) -> _child.Outcomes:
        """Damage and read the example that often, in children."""
        # A path of its own: a digit changed in a record must not lead to another format's example.
        here, there = (folder / self.name / place for place in ("here", "there"))
        for variant, place in enumerate((here, there)):
            place.mkdir(parents=True)
            self.make(place, variant)
        self.prepare()
        pairs = [[(place / name).read_bytes() for place in (here, there)] for name in self.targets]
        known = [self.read(place) for place in (here, there)]
        for name, (mine, other) in zip(self.targets, pairs, strict=True):
            replace(here / name, other)  # splicing may give this
            with contextlib.suppress(AdvkitError):
                known.append(self.read(here))
            replace(here / name, mine)

        def work(case: int) -> tuple[str, str]:
            place = Random(f"{self.name} {case}").randrange(len(self.targets))
            raw, how = mutated(*pairs[place], f"{self.name} {case}")
            path = here / self.targets[place]
            replace(path, raw)
            try:
                outcome, detail = self._judged(here, known)
            finally:
                replace(path, pairs[place][0])
            return outcome, f"{path.name} {how}: {detail}"

        return _child.run(cases, work)

    def _judged(self, folder: Path, known: list[Content]) -> tuple[str, str]:
        try:
            with _child.watching() as acted:
                found = self.read(folder)
        except AdvkitError as error:
            problem = self._fault(str(error), folder)
            outcome = "unclear" if problem else "refused", problem
        else:
            outcome = self._accepted(folder, found, known)
        forbidden = [each for each in acted if not each.startswith(self.allowed or "\0")]
        return ("action", ", ".join(forbidden)) if forbidden else outcome

    def _fault(self, message: str, folder: Path) -> str:
        """Say what is wrong with an error message; empty if nothing is."""
        if not message.isprintable():
            return f"not one printable line: {message[:200]!r}"
        if len(message) > LONGEST:
            return f"{len(message)} characters: {message[:200]!r}"
        named = any(word in message for word in (str(folder), *self.names))
        return "" if named else f"names no file: {message!r}"

    def _accepted(self, folder: Path, found: Content, known: list[Content]) -> tuple[str, str]:
        if found in known:
            return "same", ""
        if self.sound is None:
            return "changed", f"other content: {str(found)[:200]}"
        problem = self.sound(folder, found)
        return ("unsound", problem) if problem else ("sound", "")


def replace(path: Path, raw: bytes) -> None:
    """Put a file in place as a new one: HDF5 knows open files by their number on the disk."""
    temporary = path.with_name(f"{path.name}~")
    temporary.write_bytes(raw)
    os.replace(temporary, path)


def bits(values: Any) -> tuple[str, tuple[int, ...], str]:
    """Return type, shape and a digest of the bytes of a tensor or an array."""
    tensor = torch.as_tensor(values).contiguous()
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    return str(tensor.dtype), tuple(tensor.shape), hashlib.sha256(raw).hexdigest()


def fields(found: Any) -> dict[str, Any]:
    """Return a data class of tensors and plain values, without the path, as comparable values."""
    values = {each.name: getattr(found, each.name) for each in dataclasses.fields(found)}
    values.pop("path", None)
    return {
        name: bits(loaded(value)) if isinstance(value, torch.Tensor | Stored) else plain(value)
        for name, value in values.items()
    }


def plain(value: Any) -> str:
    """Return a description as text."""
    return json.dumps(value, sort_keys=True, default=str)


# --- artifacts ---


def _model(variant: int) -> tuple[torch.nn.Module, dict[str, Any]]:
    from advkit import models

    model = {"arch": "small-cnn", "options": {"width": 2}, "input_shape": [1, 8, 8],
             "mean": [0.5], "std": [0.25]}  # fmt: skip
    net = models.build(
        "small-cnn", 10, channels=1, statistics=([0.5], [0.25]), seed=variant, width=2
    )
    return net, described("checkpoint", 10, model=model, name="é")


def make_checkpoint(folder: Path, variant: int) -> None:
    net, info = _model(variant)
    checkpoint.write(folder / "x.safetensors", net.state_dict(), info)


def read_checkpoint(folder: Path) -> Content:
    from advkit import models

    net, info = models.load(folder / "x.safetensors")
    return {name: bits(value) for name, value in net.state_dict().items()}, plain(info)


def _optimized(variant: int) -> tuple[torch.nn.Module, torch.optim.SGD, dict[str, Any]]:
    net, info = _model(variant)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for parameter in net.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
    return net, optimizer, described("state", 10, model=info["model"])


def make_state(folder: Path, variant: int) -> None:
    net, optimizer, info = _optimized(variant)
    tensors = state.pack(net, None, optimizer, state.Progress(3, 2))
    checkpoint.write(folder / "state.safetensors", tensors, info)


def read_state(folder: Path) -> Content:
    tensors, info = checkpoint.read(folder / "state.safetensors", "state")
    net, optimizer, _ = _optimized(0)
    sums = state.unpack(tensors, net, None, optimizer)
    held = state.pack(net, None, optimizer, state.Progress(sums=sums))
    return {name: bits(value) for name, value in held.items()}, plain(info)


IDENTITY = {"config": {"attack": "pgd"}, "checkpoint": "sha256:c", "data": "sha256:d",
            "environment": {}}  # fmt: skip


def make_partial(folder: Path, variant: int) -> None:
    draw = torch.Generator()
    patch = torch.tensor([0, 2]), torch.rand(2, 1, 3, 3, generator=draw.manual_seed(9))
    draw.manual_seed(variant)
    books = {"logits": torch.randn(5, 3, generator=draw), "done": torch.tensor([True, False])}
    partial.Partial(folder / "x.part", IDENTITY).save(books, (0, variant), patch)


def read_partial(folder: Path) -> Content:
    found = partial.Partial(folder / "x.part", IDENTITY).load()
    if found is None:
        return None
    books, done, patches = found
    held = {name: bits(value) for name, value in books.items()}
    return held, done, [(bits(rows), bits(images)) for rows, images in patches]


def make_labels(folder: Path, variant: int) -> None:
    n, views, classes, kept = 6, 2, 7, 3
    draw = np.random.default_rng(variant)
    arrays = {"index": np.arange(n), "labels": draw.integers(0, classes, n)}
    if variant == 0:
        arrays["views"] = draw.integers(0, 2, (n, views, 3)).astype(np.uint8)
        arrays["logits"] = -draw.random((n, views, kept), np.float32)
        arrays["classes"] = draw.integers(0, classes, (n, views, kept)).astype(np.int16)
        arrays["rest"] = draw.random((n, views), np.float32)
    else:
        arrays["logits"] = -draw.random((n, classes), np.float32).astype(np.float16)
    info = described("labels", data={"name": "made", "classes": list("abcdefg")})
    info["config"]["views"] = "2"
    soft_labels.write(folder / "x.h5", [arrays], info)


def read_labels(folder: Path) -> Content:
    """Read what stays in the file by pieces, and once more all at once."""
    found = fields(soft_labels.read(folder / "x.h5"))
    return found, fields(artifact.read(folder / "x.h5", ("labels",)))


def make_logits(folder: Path, variant: int) -> None:
    n, classes = 7, 3
    draw = torch.Generator().manual_seed(variant)
    info = described("logits", classes, attacks=["fgsm"], name="é", seed=variant)
    info["config"]["attack"] = "fgsm"
    broken = torch.randint(-2, 1, (n,), generator=draw)
    clean = torch.randn(n, classes, generator=draw)
    images = torch.rand(n, 1, 3, 3, generator=draw) if variant == 0 else None
    hdf5.write_logits(
        folder / "x.h5",
        hdf5.Logits(
            torch.arange(n), torch.randint(-1, classes, (n,), generator=draw), clean, info,
            clean + 1, torch.rand(n, generator=draw), broken, images,
        ),
    )  # fmt: skip


def read_logits(folder: Path) -> Content:
    """Read what stays in the file by pieces, and once more all at once."""
    found = fields(hdf5.read_logits(folder / "x.h5"))
    return found, fields(artifact.read(folder / "x.h5", ("logits",)))


@dataclass(frozen=True)
class Figures:
    """What an analysis gives, in small."""

    numbers: Mapping[str, Any]
    columns: tuple[str, ...] = ("name", "share")
    rows: tuple[tuple[Any, ...], ...] = (("a", 0.25), ("é", 1e-05), ("", None))
    groups: tuple[dict[str, Any], ...] = ({"name": "g", "n": 3},)
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    document: None = None


def _make_analysis(name: str) -> Callable[[Path, int], None]:
    def make(folder: Path, variant: int) -> None:
        info = described("analysis", seed=variant)
        table = Figures({"ece": 0.125 + variant, "n": 40, "p": None})
        analysis.write(folder / name, table, info)

    return make


def _read_analysis(name: str) -> Callable[[Path], Content]:
    def read(folder: Path) -> Content:
        return plain(artifact.read_info(folder / name)), plain(analysis.read_info(folder / name))

    return read


# --- text ---


def make_records(folder: Path, variant: int) -> None:
    make_logits(folder, variant)
    digest = str(artifact.read_info(folder / "x.h5")["digest"])
    figures = {"clean_accuracy": 0.75, "ci95": [0.5, 0.9], "run": "é", "attack": "pgd"}
    line = record.line(record.make("logits", folder / "x.h5", digest, **figures))
    (folder / "lines").write_text(f"{line}\n{folder / 'x.h5'}\n", encoding="utf-8")


def read_records(folder: Path) -> Content:
    """Read lines as every stage does, and what the first of them name."""
    raw = (folder / "lines").read_bytes()
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(raw))
    try:
        texts = list(stage.sources(Call(), "artifact"))
    finally:
        sys.stdin = before
    found = []
    for text in texts:
        each = stage.record_of(text, record.KINDS)
        path = Path(record.wanted(each, record.KINDS))
        found.append((plain(each), plain(artifact.read_info(path))))
    return found


def sound_records(folder: Path, found: Content) -> str:
    """Check that what was read is what one of the intact files names."""
    both = [
        plain(artifact.read_info(folder.with_name(name) / "x.h5")) for name in ("here", "there")
    ]
    return "" if found and all(info in both for _, info in found) else "another artifact was read"


def make_toml(folder: Path, variant: int) -> None:
    given = {"data": "digits", "method": ("adr-awp-wa", "ltd")[variant], "epochs": 3}
    if variant:
        given["soft_labels"] = "é.h5"
    (folder / "x.toml").write_text(resolve.resolve((given, "flag")).toml(), encoding="utf-8")


def read_toml(folder: Path) -> Content:
    return resolve.resolve((stored.read(folder / "x.toml"), "from x.toml")).toml()


def sound_toml(folder: Path, found: Content) -> str:
    (folder / "again.toml").write_text(found, encoding="utf-8")
    again = resolve.resolve((stored.read(folder / "again.toml"), "from x.toml"))
    values = [line.split("  #")[0] for line in found.splitlines()]
    other = [line.split("  #")[0] for line in again.toml().splitlines()]
    return "" if values == other else "a configuration that does not read back as itself"


def make_metrics(folder: Path, variant: int) -> None:
    rows = [
        {"epoch": place + 1, "n": 32, "seconds": 0.5, "train_loss": 1.5 / (place + 1 + variant)}
        for place in range(4)
    ]
    RunFolder(folder).metrics_file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def read_metrics(folder: Path) -> Content:
    return plain(RunFolder(folder).rows())


CLASSES = ("cat", "dog", "é")


def make_oracle(folder: Path, variant: int) -> None:
    rows = "".join(f"test/cat/{place}.png,{place + 1},0,{2 + variant}\n" for place in range(5))
    (folder / "x.csv").write_text(f"path,cat,dog,é\n{rows}", encoding="utf-8")


def read_table(folder: Path) -> Content:
    found = read_oracle(folder / "x.csv", CLASSES)
    return {path: row.tolist() for path, row in found.items()}


def sound_oracle(folder: Path, found: Content) -> str:
    wrong = [row for row in found.values() if len(row) != 3 or abs(sum(row) - 1) > 1e-9]
    return f"no distribution: {wrong[0]}" if wrong or not found else ""


# --- data sets ---


def image_set(found: Any) -> Content:
    """Return what tells a data set from another, all pixels included."""
    pixels = found.batch(torch.arange(len(found.labels)))
    return {"pixels": bits(pixels), "labels": found.labels.tolist(), "classes": found.classes}


def reader(name: str, split: str = "test", **options: Any) -> Callable[[Path], Content]:
    """Return the reader of a data set."""

    def read(folder: Path) -> Content:
        given = {key: folder / value if key == "image_list" else value
                 for key, value in options.items()}  # fmt: skip
        given = {key: str(value) if isinstance(value, Path) else value
                 for key, value in given.items()}  # fmt: skip
        return image_set(data.load(name, split, root=folder, **given))

    return read


def sound_images(folder: Path, found: Content) -> str:
    """Check by the numbers what any data set has to be."""
    kind, shape, _ = found["pixels"]
    labels, classes = found["labels"], found["classes"]
    if kind != "torch.uint8" or len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape:
        return f"pixels {kind} {shape}"
    if len(labels) != shape[0] or not all(0 <= label < len(classes) for label in labels):
        return f"labels {labels} of {shape[0]} images in {len(classes)} classes"
    return ""


def make_idx(folder: Path, variant: int) -> None:
    draw = np.random.default_rng(variant)
    images, labels = draw.integers(0, 256, (6, 5, 5), np.uint8), np.arange(6, dtype=np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / f"t10k-{name}-ubyte").write_bytes(head + array.tobytes())


def make_idx_gz(folder: Path, variant: int) -> None:
    make_idx(folder, variant)
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()


def sound_idx(folder: Path, found: Content) -> str:
    """Compare with the bytes behind the headers."""
    images = (folder / "t10k-images-idx3-ubyte").read_bytes()
    labels = (folder / "t10k-labels-idx1-ubyte").read_bytes()
    same = found["pixels"][2] == hashlib.sha256(images[16:]).hexdigest()
    return sound_images(folder, found) or (
        "" if same and found["labels"] == list(labels[8:]) else "not what the files hold"
    )


def make_npz(folder: Path, variant: int) -> None:
    draw = np.random.default_rng(variant)
    save = (np.savez_compressed, np.savez)[variant]
    for name in ("train", "test"):
        images = draw.integers(0, 256, (6, 4, 5, 3), np.uint8)
        save(folder / f"{name}.npz", image=images, label=np.arange(6) % 4)


def make_cifar10c(folder: Path, variant: int) -> None:
    draw = np.random.default_rng(variant)
    np.save(folder / "fog.npy", draw.integers(0, 256, (10, 4, 5, 3), np.uint8))
    np.save(folder / "labels.npy", np.arange(10) % 4)


def _make_svhn(packed: bool) -> Callable[[Path, int], None]:
    def make(folder: Path, variant: int) -> None:
        draw = np.random.default_rng(variant)
        content = {"X": draw.integers(0, 256, (32, 32, 3, 2), np.uint8),
                   "y": np.array([[10], [3]], np.uint8)}  # fmt: skip
        scipy.io.savemat(folder / "test_32x32.mat", content, do_compression=packed)

    return make


def sound_svhn(folder: Path, found: Content) -> str:
    """Compare with the bytes of the file: the pixels must lie in it as they were read."""
    pixels = data.load("svhn", "test", root=folder).images.numpy()
    inside = pixels.transpose(2, 3, 1, 0).tobytes("F") in (folder / "test_32x32.mat").read_bytes()
    return sound_images(folder, found) or ("" if inside else "pixels that the file does not hold")


def _picture(path: Path, draw: np.random.Generator, size: int = 8, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = draw.integers(0, 256, (size, size, 3), np.uint8)
    image = Image.fromarray(noise)
    if path.suffix == ".tiff":
        options = {"compression": "tiff_lzw"}
    (image.quantize(64) if path.suffix == ".gif" else image).save(path, **options)


def _make_folder(suffixes: tuple[str, ...]) -> Callable[[Path, int], None]:
    def make(folder: Path, variant: int) -> None:
        draw = np.random.default_rng(variant)
        for place, suffix in enumerate(suffixes):
            for name in ("cat", "dog"):
                _picture(folder / "test" / name / f"{place}{suffix}", draw)

    return make


def _pictures(*suffixes: str) -> tuple[str, ...]:
    return tuple(f"test/cat/{place}{suffix}" for place, suffix in enumerate(suffixes))


def make_imagenet(folder: Path, variant: int) -> None:
    draw = np.random.default_rng(variant)
    names = [f"n0{place}/a{place}.JPEG" for place in range(3)]
    for name in names:
        (folder / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        path = folder / "val" / name
        _picture(path, draw, 12, format="JPEG")
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in names[variant:]))


WNIDS = ("n01443537", "n01629819")


def make_tiny(folder: Path, variant: int) -> None:
    draw = np.random.default_rng(variant)
    lines = []
    for place, name in enumerate(WNIDS):
        _picture(folder / "train" / name / "images" / f"{name}_0.JPEG", draw, format="JPEG")
        for number in (2 * place, 2 * place + 1):
            _picture(folder / "val" / "images" / f"val_{number}.JPEG", draw, format="JPEG")
            lines.append(f"val_{number}.JPEG\t{name}\t0\t32\t44\t{62 + variant}\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(WNIDS[::-1]))
    (folder / "words.txt").write_text("n01443537\tgoldfish, é\nn01629819\tsalamander\n")


def _batches(name: str) -> tuple[str, tuple[str, ...], str]:
    if name == "cifar10":
        files = (*(f"data_batch_{place}" for place in range(1, 6)), "test_batch")
        return "cifar-10-batches-py", files, "batches.meta"
    return "cifar-100-python", ("train", "test"), "meta"


def _make_cifar(name: str) -> Callable[[Path, int], None]:
    def make(folder: Path, variant: int) -> None:
        draw = np.random.default_rng(0)  # both variants alike: there is one published set
        inner, files, meta = _batches(name)
        (folder / inner).mkdir()
        names = [f"class {place}" for place in range(100 if name == "cifar100" else 10)]
        key = "fine_label_names" if name == "cifar100" else "label_names"
        labels = "fine_labels" if name == "cifar100" else "labels"
        for each in files:
            rows = draw.integers(0, 256, (2, 3072), np.uint8)
            raw = pickle.dumps({"data": rows, labels: [1, 0]}, protocol=2)
            (folder / inner / each).write_bytes(raw)
        (folder / inner / meta).write_bytes(pickle.dumps({key: names}, protocol=2))

    return make


def _publish_cifar(name: str) -> Callable[[], None]:
    """Let the checksums of the made batches be the published ones."""

    def prepare() -> None:
        import tempfile

        from torchvision import datasets

        kind = getattr(datasets, name.upper())
        inner, files, meta = _batches(name)
        with tempfile.TemporaryDirectory() as scratch:
            _make_cifar(name)(Path(scratch), 0)
            sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest()
                    for path in (Path(scratch) / inner).iterdir()}  # fmt: skip
        test = files[-1]
        kind.train_list = [[each, sums[each]] for each in files if each != test]
        kind.test_list = [[test, sums[test]]]
        kind.meta = {**kind.meta, "filename": meta, "md5": sums[meta]}

    return prepare


ARRAYS = tuple(
    f"pickle.find_class ('{name}'" for name in ("numpy._core.multiarray", "numpy", "_codecs")
)
"""What an array in CIFAR's published batches is made with."""
LOSSY = (".jpg",)
CHECKED = (".png",)
OTHERS = (".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")

FORMATS = (
    Format("checkpoint", make_checkpoint, ("x.safetensors",), read_checkpoint),
    Format("state", make_state, ("state.safetensors",), read_state),
    Format("partial", make_partial, ("x.part", "x.part.0"), read_partial),
    Format("labels", make_labels, ("x.h5",), read_labels),
    Format("logits", make_logits, ("x.h5",), read_logits),
    Format("analysis-json", _make_analysis("x.json"), ("x.json",), _read_analysis("x.json")),
    Format("analysis-hdf5", _make_analysis("x.h5"), ("x.h5",), _read_analysis("x.h5")),
    Format("records", make_records, ("lines",), read_records, sound_records,
           names=("stdin", "no such file", "cannot be read", "not a path", "record, wanted")),
    Format("config", make_toml, ("x.toml",), read_toml, sound_toml,
           names=("(from x.toml)", "--data is needed")),
    Format("metrics", make_metrics, ("metrics.jsonl",), read_metrics, nothing),
    Format("oracle", make_oracle, ("x.csv",), read_table, sound_oracle),
    Format("idx", make_idx, ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"), reader("idx"),
           sound_idx),
    Format("idx-gz", make_idx_gz, ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
           reader("idx")),
    Format("npz", make_npz, ("train.npz", "test.npz"), reader("npz")),
    Format("svhn", _make_svhn(True), ("test_32x32.mat",), reader("svhn")),
    Format("svhn-plain", _make_svhn(False), ("test_32x32.mat",), reader("svhn"), sound_svhn),
    Format("folder-png", _make_folder(CHECKED), _pictures(*CHECKED), reader("folder")),
    Format("folder-jpeg", _make_folder(LOSSY), _pictures(*LOSSY), reader("folder"), sound_images),
    Format("folder-others", _make_folder(OTHERS), _pictures(*OTHERS), reader("folder"),
           sound_images),
    Format("cifar10", _make_cifar("cifar10"),
           tuple(f"cifar-10-batches-py/{name}"
                 for name in ("data_batch_1", "test_batch", "batches.meta")),
           reader("cifar10"), allowed=ARRAYS, prepare=_publish_cifar("cifar10")),
    Format("cifar100", _make_cifar("cifar100"),
           ("cifar-100-python/test", "cifar-100-python/meta"), reader("cifar100"),
           allowed=ARRAYS, prepare=_publish_cifar("cifar100")),
    Format("cifar10c", make_cifar10c, ("fog.npy", "labels.npy"),
           reader("cifar10c", corruption="fog", severity=2), sound_images),
    Format("cifar100c", make_cifar10c, ("fog.npy", "labels.npy"),
           reader("cifar100c", corruption="fog", severity=2), sound_images),
    Format("imagenet", make_imagenet, ("list.txt", "val/n00/a0.JPEG"),
           reader("imagenet", image_size=8, image_list="list.txt"), sound_images),
    Format("tinyimagenet", make_tiny,
           ("val/val_annotations.txt", "wnids.txt", "words.txt", "val/images/val_0.JPEG"),
           reader("tinyimagenet"), sound_images),
)  # fmt: skip
