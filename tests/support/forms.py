"""The same images in every form of source. `folders`: an ImageFolder; `out`: where the form is made."""

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

# how tests split what is made here, by the library and by the program
OPTIONS = {"factor": 4, "size": 16, "samples_per_shard": 8, "samples_per_block": 4, "val_per_class": 2}
WNIDS = ["n01440764", "n01443537", "n01484850"]
SPLIT = ["spectral-prep", "split", "--factor", "4", "--size", "16", "--val-per-class", "2", "--jobs", "1"]
SPLIT += ["--samples-per-shard", "8", "--samples-per-block", "4"]
DEVKIT = "ILSVRC2012_devkit_t12"


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def class_tars(folders: Path, out: Path, prefix: str = "") -> Path:
    """One tar a class, members in reverse order."""
    out.mkdir(parents=True)
    for folder in folders.iterdir():
        with tarfile.open(out / f"{folder.name}.tar", "w") as tar:
            for path in sorted(folder.iterdir(), reverse=True):
                add(tar, prefix + path.name, path.read_bytes())
    return out


def class_tars_gz(folders: Path, out: Path) -> Path:
    for tar in class_tars(folders, out).iterdir():
        (out / f"{tar.name}.gz").write_bytes(gzip.compress(tar.read_bytes(), 1))
        tar.unlink()
    return out


def tar_of_tars(folders: Path, out: Path, prefix: str = "") -> Path:
    """One tar of class tars; `out` is the file."""
    tars = class_tars(folders, out.parent / f"{out.name}-tars")
    with tarfile.open(out, "w") as outer:
        for path in sorted(tars.iterdir(), reverse=True):
            add(outer, prefix + path.name, path.read_bytes())
    shutil.rmtree(tars)
    return out


def tar_of_tars_gz(folders: Path, out: Path) -> Path:
    """winter21_whole.tar.gz: the class tars lie in a folder within it."""
    plain = tar_of_tars(folders, out.with_suffix(".plain"), "winter21_whole/")
    out.write_bytes(gzip.compress(plain.read_bytes(), 1))
    return out


def flat_tar(images: dict[str, bytes], out: Path) -> None:
    with tarfile.open(out, "w") as tar:
        for name, data in images.items():
            add(tar, name, data)


def shards(
    folders: Path, out: Path, name: str = "set-{:03d}.tar", classes: bool = True, each: int = 5, label: str = "cls"
) -> Path:
    """WebDataset shards of `each` samples, classes mixed, as ShardWriter orders members."""
    out.mkdir(parents=True, exist_ok=True)
    names = sorted(folder.name for folder in folders.iterdir())
    paths = sorted(folders.glob("*/*"), key=lambda path: (path.stem[::-1], path.parent.name))
    for start in range(0, len(paths), each):
        with tarfile.open(out / name.format(start // each), "w") as tar:
            for path in paths[start : start + each]:
                index = names.index(path.parent.name)
                text = str(index) if label == "cls" else json.dumps({"label": index, "caption": "x"})
                add(tar, f"{path.stem}.{label}", text.encode())
                add(tar, path.name, path.read_bytes())
                add(tar, f"{path.stem}.txt", b"a caption")
    if classes:
        (out / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    return out


def parquet(folders: Path, out: Path, name: str = "train-{:05d}-of-00002.parquet", paths: bool = True) -> Path:
    """Two files with the columns, and the metadata, of a data hub; rows in a mixed order."""
    import pyarrow as pa
    from pyarrow import parquet

    out.mkdir(parents=True, exist_ok=True)
    names = sorted(folder.name for folder in folders.iterdir())
    files = sorted(folders.glob("*/*"), key=lambda path: (path.stem[::-1], path.parent.name))
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": names},
    }
    for number in range(2):
        some = files[number * len(files) // 2 : (number + 1) * len(files) // 2]
        images = [{"bytes": p.read_bytes(), "path": p.name if paths else None} for p in some]
        table = pa.table(
            {
                "image": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
                "label": pa.array([names.index(p.parent.name) for p in some], pa.int64()),
            }
        )
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        parquet.write_table(table, out / name.format(number), row_group_size=4)
    return out


def devkit(out: Path, wnids: list[str], truth: list[str]) -> Path:
    """The devkit's tar: ILSVRC2012_IDs count from 1 in the order of `wnids`; an inner node comes last."""
    import numpy as np
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O"), ("children", "O")]
    synsets = np.zeros((len(wnids) + 1, 1), kinds)
    for number, wnid in enumerate([*wnids, "n00000000"], 1):
        children = np.arange(1, len(wnids) + 1, dtype=np.uint8) if number > len(wnids) else np.zeros((1, 0))
        synsets[number - 1, 0] = (np.float64(number), wnid, f"name of {wnid}, café", np.uint8(children.size), children)
    mat = io.BytesIO()
    savemat(mat, {"synsets": synsets}, do_compression=True)
    lines = "".join(f"{wnids.index(wnid) + 1}\n" for wnid in truth)
    with tarfile.open(out, "w:gz") as tar:
        add(tar, f"{DEVKIT}/data/meta.mat", mat.getvalue())
        add(tar, f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt", lines.encode())
    return out


MAKERS: dict[str, Callable[[Path, Path], Path]] = {
    "class-tars": lambda folders, out: class_tars(folders, out / "set"),
    "class-tars-gz": lambda folders, out: class_tars_gz(folders, out / "set"),
    "tar-of-tars": lambda folders, out: tar_of_tars(folders, out / "set.tar"),
    "tar-of-tars-gz": lambda folders, out: tar_of_tars_gz(folders, out / "set.tar.gz"),
    "webdataset": lambda folders, out: shards(folders, out / "set"),
    "parquet": lambda folders, out: parquet(folders, out / "set"),
}


def ilsvrc(folders: Path, root: Path, labels: str) -> tuple[Path, Path]:
    """ILSVRC2012 as it is fetched, and the same as folders: one image of each class is for validation."""
    same = shutil.copytree(folders, root / "same" / "ilsvrc" / "train")
    val = same.parent / "val"
    images, truth = {}, []
    for number, wnid in enumerate([WNIDS[2], WNIDS[0], WNIDS[1], WNIDS[0]], 1):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        (val / wnid).mkdir(parents=True, exist_ok=True)
        image = shutil.copy(folders / wnid / f"{wnid}_{number:03d}.JPEG", val / wnid / name)
        images[name], truth = image.read_bytes(), [*truth, wnid]
    source = root / "ilsvrc"
    source.mkdir()
    tar_of_tars(folders, source / "ILSVRC2012_img_train.tar")
    flat_tar(images, source / "ILSVRC2012_img_val.tar")
    if labels == "devkit":
        devkit(source / f"{DEVKIT}.tar.gz", [WNIDS[1], WNIDS[0], WNIDS[2]], truth)
    else:
        given = truth if labels == "wnids" else [str(WNIDS.index(wnid)) for wnid in truth]
        lines = [f"{name} {label}\n" for name, label in zip(images, given, strict=True)]
        (source / "val.txt").write_text("".join(lines))
    return source, same.parent
