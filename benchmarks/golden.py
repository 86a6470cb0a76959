"""A table of what the programs write, as digests and values: to show that a change of the code changes no result.

    python benchmarks/golden.py --out before.json; python benchmarks/golden.py --compare before.json

It runs the programs that lie beside this Python, on images that it makes, on the CPU with one thread each, and reads
what they leave; it imports nothing of the packages. So it serves other trees of the project too, each in an environment
of its own: `--renamed HERE=THERE` says what another tree calls by another name: an option, its value, a file, a key in
it, or a word between two `_`. A table holds for one machine and the same versions of libraries, so none is kept: make
that of the earlier tree first.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

TIMES = ("seconds", "train_seconds", "data_wait")
SPLITS = (
    *(f"images --out {k}-{t} --factor {k} --transform {t}" for k in (4, 16, 36) for t in ("dct", "dct2", "none")),
    "images --out float16 --factor 16 --size 64 --dtype float16 --color rgb --fit crop --margin 16 --jobs 2 "
    "--samples-per-block 1 --orientation exif",
    "images --out some --factor 36 --size 72 --bands 0-2,35 --quant-step 1.5 --samples-per-shard 7 "
    "--samples-per-block 3 --seed 5 --limit 31 --classes classes.txt --min-class-images 2 --jobs 2",
    "images/train --out parted --factor 4 --size 32 --val-per-class 3 --seed 2",
    *(f"tiny --out tiny{k} --factor {k} --size 16 --margin 4 --samples-per-block 20" for k in (4, 1)),
    "tiny --out tiny16 --factor 16 --size 32 --dtype float16 --color rgb --transform dct2 --samples-per-shard 90",
)
CPU = "spectral-train --device cpu --precision float32 --shards tiny4/00"
# a twentieth of all is the holdout
QUICK = f"{CPU} --network cnn --recipe quick --batch-size 32 --holdout-samples 60 --epochs 2"
SGD = f"{QUICK} --optimizer sgd --lr 0.05 --lr-min 0.001 --momentum 0.8 --nesterov --weight-decay 0.001 --warmup 0.5"
RANKS = "python -m torch.distributed.run --standalone --nproc-per-node 2"
TRAININGS = {
    **{f"sgd-{count}": f"{SGD} --schedule cosine --flip --random-shift 1 --workers {count}" for count in (0, 1, 2)},
    "bare": f"{QUICK} --warmup 0 --label-smoothing 0 --no-flip --random-shift 0 --no-nesterov --last-batch drop "
    "--seed 7",
    "adamw": f"{QUICK} --optimizer adamw --lr 0.002 --lr-min 1e-5 --momentum 0.85 --weight-decay 0.05 --workers 2 "
    "--schedule onecycle --warmup 0.7 --clip-grad 0.5 --grad-accum-steps 2 --ema 0.9 --label-smoothing 0.2 "
    "--last-batch wrap",
    "step": f"{QUICK} --schedule step --step-epochs 1 --gamma 0.3 --mixup 0.4 --last-batch wrap "
    "--holdout-samples 0 --epochs 3",
    "cutmix": f"{QUICK} --cutmix 1 --grad-accum-steps 3 --random-shift 2 --clip-grad 1",
    "both": f"{QUICK} --mixup 0.5 --cutmix 0.5 --ema 0.8 --no-flip --workers 2 --save-every 0",
    **{name: f"{SGD} --epochs 1 --clip-grad 2 --precision {name}" for name in ("bfloat16", "float16")},
    **{n: f"{QUICK} --recipe {n}" for n in ("cifar10", "imagenet1k", "imagenet1k-strong", "imagenet21k")},
    **{name: f"{QUICK} --epochs 1 --network {name}" for name in ("resnet18", "alexnet")},
    **{name: f"{QUICK} --shards {name}" for name in ("tiny16/05", "tiny1/00")},
    "ranks": f"{RANKS} {SGD} --mixup 0.3 --cutmix 0.6 --grad-accum-steps 2 --ema 0.9",
}
TEXTS = (
    *(f"spectral-prep verify {name} --against images --samples 20" for name in ("4-dct", "16-none", "36-dct2")),
    "spectral-prep split images --factor 16 --out dry --dry-run",
    *(f"{CPU} --describe --network {name}" for name in ("resnet34", "resnet50", "vgg16")),
    *(f"{CPU} --evaluate runs/{path}" for path in ("sgd-1/checkpoint.pt", "ranks/best.pt --ten-crop")),
)
ENSEMBLES = ("holdout --rule mean --baseline runs/tiny1/00", "halves --rule geometric", "train", "val --rule fitted")


def digest(pieces: list[tuple[str, bytes]]) -> str:
    """Of names with their contents, in the order given."""
    return hashlib.sha256(b"".join(f"{name} {len(data)}\n".encode() + data for name, data in pieces)).hexdigest()[:32]


def make_images(root: Path) -> None:
    """Waves in noise, which differ by class: of several kinds and sizes, one damaged; and tiny ones to train on."""
    random = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: turned
    for name, noise, classes, sizes in (("images", 40, 5, (12, 4)), ("tiny", 120, 10, (120, 20))):
        counts = {"train": sizes[0], "val": sizes[1]}
        for part, label, number in ((p, c, n) for p in counts for c in range(classes) for n in range(counts[p])):
            high, wide = random.integers(40, 700 if number == 4 else 140, 2) if name == "images" else (20, 20)
            rows, columns = np.mgrid[:high, :wide]
            waves = np.sin((0.3 + label / 10) * (np.cos(label) * rows + np.sin(label) * columns) + random.uniform(0, 6))
            pixels = 128 + 70 * waves[..., None] + random.normal(0, noise, (high, wide, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(("RGB", "L", "RGBA", "P")[number % 4])
            path = root / name / part / f"class{label}" / f"{number}.{'jpg' if number in (4, 5) else 'png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, exif=exif if number == 5 else b"")
    (root / "images/train/class0/bad.png").write_bytes((root / "images/train/class0/0.png").read_bytes()[:200])
    (root / "classes.txt").write_text("class3\nclass0\nclass4\n")


def renamed(text: str, names: dict[str, str]) -> str:
    """A text with other names."""
    words = rf"(?<![A-Za-z0-9-])({'|'.join(map(re.escape, names))})(?![A-Za-z0-9-])"
    return re.sub(words, lambda word: names.get(word[0], word[0]), text)


class Golden:
    """Runs the programs in a folder, and gathers what they print and write there in a table, by the names used here."""

    def __init__(self, root: Path, names: dict[str, str]) -> None:
        self.root, self.there, self.here = root, names, {there: here for here, there in names.items()}
        self.table: dict[str, Any] = {"made with": [sys.version.split()[0], np.__version__, str(torch.__version__)]}
        self.env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def run(self, line: str) -> str:
        """What a program prints, without times and sizes of exported models, which name lines of the code."""
        line = renamed(line, self.there)
        words = [f"{sys.prefix}/bin/{word}" if re.match("python$|spectral-", word) else word for word in line.split()]
        done = subprocess.run(words, cwd=self.root, env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(f"{line}: {done.stderr or done.stdout}")
        return re.sub(r"(?m)[\d.]+ s\b|[\d.]+% waiting|[\d.]+ MB$", "-", renamed(done.stdout, self.here))

    def read(self, path: str) -> Any:
        """The objects in a file of JSON, one or one a line, without times."""
        text = renamed((self.root / renamed(path, self.there)).read_text(), self.here).replace("}\n{", "},{")
        return json.loads(f"[{text}]", object_hook=lambda found: {k: v for k, v in found.items() if k not in TIMES})

    def split(self, line: str) -> None:
        """Split, and look at the split in every way."""
        self.table[f"split {line}"] = self.run(f"spectral-prep split {line}")
        name, groups = line.split()[2], dict[str, list[tuple[str, bytes]]]()
        for file in sorted((self.root / name).rglob("*.*")):
            if file.suffix != ".bin":  # of a scan: it has the times of the source
                path = file.relative_to(self.root / name).as_posix()
                groups.setdefault(re.sub(r"^\d+/|[^/]*\.", "", path), []).append((path, file.read_bytes()))
        self.table |= {f"split {name} {group}": digest(files) for group, files in groups.items()}
        for what in ("info {0}", "info {0}/00", "verify {0}", "preview {0} --out {0}.png --images 3"):
            self.table[what.format(name)] = self.run(f"spectral-prep {what.format(name)}")
        self.table[f"preview {name}"] = digest([("", (self.root / f"{name}.png").read_bytes())])

    def train(self, name: str) -> None:
        """Train, and read the run folder."""
        run = f"runs/{name}"
        self.table[f"{run} said"] = " ".join(self.run(f"{TRAININGS[name]} --out {run}").split())  # in whatever lines
        for file in ("metrics.jsonl", "steps.jsonl"):
            lines = self.read(f"{run}/{file}")
            self.table |= {f"{run} {file} {key}": [line.get(key) for line in lines] for key in lines[0]}
        self.table[f"{run} result"] = self.read(f"{run}/run.json")[0]["result"]
        for array in (self.root / run).glob("*.npy"):
            self.table[f"{run} {renamed(array.name, self.here)}"] = digest([("", array.read_bytes())])
        for file in ("checkpoint.pt", "best.pt"):
            found = torch.load(self.root / renamed(f"{run}/{file}", self.there), weights_only=True)
            parts = {part: found.get(renamed(part, self.there)) for part in ("network", "ema")}
            states = found[renamed("optimizer", self.there)]["state"].items()
            parts["optimizer"] = {f"{number} {key}": value for number, state in states for key, value in state.items()}
            for part, tensors in ((part, tensors) for part, tensors in parts.items() if tensors):
                pieces = [(key, tensor.contiguous().numpy().tobytes()) for key, tensor in tensors.items()]
                self.table[f"{run} {file} {part}"] = digest(sorted(pieces))
                self.table[f"{run} {file} {part}, nameless"] = digest([("", data) for _, data in pieces])

    def ensembles(self) -> None:
        """All bands fused in each way; the exported models answer some images."""
        self.run(f"{QUICK} --epochs 1 --shards tiny4 --jobs 2 --out all")
        images = np.random.default_rng(2).integers(0, 256, (5, 3, 37, 29), np.uint8)
        for options in ENSEMBLES:
            name = f"ensemble {options}"
            self.table[name] = self.run(f"spectral-ensemble all --export model.pt2 --rank-on {options}")
            for key, value in self.read("all/ensemble.json")[0].items():  # whose form may change: the numbers in it
                self.table[f"{name}: {key}"] = sorted(re.findall(r"(?<=[ \[])-?\d[\d.e-]*", f"[{json.dumps(value)}]"))
            self.table[f"{name}: plot"] = digest([("", (self.root / "all/ensemble.png").read_bytes())])
            outputs = torch.export.load(self.root / "model.pt2").module()(torch.from_numpy(images))
            self.table[f"{name}: model"] = digest([("", outputs.detach().numpy().tobytes())])


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="File for the table, as JSON.")
@click.option("--compare", type=click.Path(path_type=Path, exists=True), help="An earlier such file.")
@click.option("--renamed", "names", multiple=True, help="HERE=THERE: what another tree calls by another name.")
def main(out: Path | None, compare: Path | None, names: tuple[str, ...]) -> None:
    """Print the table, and with --compare what differs; exit with 1 if anything does."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        golden = Golden(Path(folder), dict(pair.split("=", 1) for pair in names))
        make_images(golden.root)
        list(pool.map(golden.split, SPLITS))
        list(pool.map(golden.train, TRAININGS))
        fused = pool.submit(golden.ensembles)
        golden.table |= zip(TEXTS, pool.map(golden.run, TEXTS), strict=True)
        fused.result()
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(golden.table.items())]
    click.echo("\n".join(line[:150] for line in lines))
    if out:
        out.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if compare:
        before, table = json.loads(compare.read_text()), golden.table
        differing = [name for name in sorted(before.keys() | table.keys()) if before.get(name) != table.get(name)]
        for name in differing:
            old, new = (str(each.get(name)).splitlines() for each in (before, table))
            click.echo("\n".join(["", name, *list(difflib.unified_diff(old, new, n=0, lineterm=""))[3:]]))
        if differing:
            raise click.ClickException(f"{len(differing)} of {len(before.keys() | table.keys())} differ")
        click.echo(f"all {len(table)} equal")


if __name__ == "__main__":
    main()
