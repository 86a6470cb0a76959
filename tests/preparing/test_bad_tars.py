"""Tars that are cut, damaged or hostile: each member a reject, or the whole one sentence."""

import gzip
import io
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_shards.preprocess.errors import SourceError
from spectral_shards.preprocess.listing import Listing
from spectral_shards.preprocess.sources import find_source
from spectral_shards.preprocess.sources.matfile import read_mat
from spectral_shards.preprocess.sources.tar_reader import RangeReader, list_images
from support import forms
from support.pictures import encode, picture
from support.programs import fails
from support.splits import make_split

IMAGE = encode(picture(1))
Write = Callable[[Path, dict[str, bytes]], Path]


def info(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member


def tar_bytes(members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def in_class_tars(root: Path, inner: bytes) -> Path:
    (root / "set").mkdir()
    (root / "set" / "a.tar").write_bytes(inner)
    return root / "set"


def in_tar_of_tars(root: Path, inner: bytes) -> Path:
    (root / "set.tar").write_bytes(tar_bytes([(info("a.tar"), inner)]))
    return root / "set.tar"


def in_compressed_tars(root: Path, inner: bytes) -> Path:
    (root / "set").mkdir()
    (root / "set" / "a.tar.gz").write_bytes(gzip.compress(inner, 1))
    return root / "set"


HOMES = [in_class_tars, in_tar_of_tars, in_compressed_tars]


def scan(path: Path) -> Listing:
    return find_source(path).scan()


@pytest.mark.parametrize("home", HOMES)
def test_a_truncated_class_tar(home: Callable[[Path, bytes], Path], tmp_path: Path) -> None:
    whole = tar_bytes([(info(f"{i}.jpg"), IMAGE) for i in range(3)])
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        members = tar.getmembers()
    for number, cut in enumerate((members[2].offset, members[2].offset + 100, members[2].offset_data + 100)):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(SourceError, match=r"a\.tar.* is not a complete plain tar \(.*\): fetch it again"):
            scan(home(tmp_path / str(number), whole[:cut]))


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"]
)
@pytest.mark.parametrize("name", ["train.tar", "train-000.tar", "cat.tar"])
def test_a_file_that_is_no_tar(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=rf"/{name} is not a complete plain tar \(.*\): fetch it again"):
        scan(tmp_path)


def test_a_truncated_outer_tar(tmp_path: Path) -> None:
    inner = tar_bytes([(info(f"{i}.jpg"), IMAGE) for i in range(3)])
    whole = tar_bytes([(info(f"{name}.tar"), inner) for name in "abc"])
    path = tmp_path / "fall11_whole.tar"
    path.write_bytes(whole)
    assert len(scan(path).parts["train"]) == 9
    with tarfile.open(path) as tar:
        last = tar.getmembers()[2]
    for cut in (last.offset, last.offset + 50, last.offset_data + 5000, last.offset_data + last.size - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(SourceError, match=r"fall11_whole\.tar is not a complete plain tar"):
            scan(path)


@pytest.mark.parametrize("home", HOMES)
def test_members_that_are_no_images(
    home: Callable[[Path, bytes], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectral_shards.preprocess.sources.tar_reader.LARGEST_IMAGE", 50_000)
    monkeypatch.setattr("spectral_shards.preprocess.sources.base.LARGEST_IMAGE", 50_000)
    sparse = info("sparse.jpg", tarfile.GNUTYPE_SPARSE)
    members = [
        (info("good.jpg"), IMAGE),
        (info("good.jpg"), IMAGE),
        (info("../../x.jpg"), IMAGE),
        (info("b/../../x.jpg"), IMAGE),
        (info("link.jpg", tarfile.SYMTYPE, link="/etc/passwd"), b""),
        (info("hard.jpg", tarfile.LNKTYPE, link="good.jpg"), b""),
        (info("pipe.jpg", tarfile.FIFOTYPE), b""),
        (info("large.jpg"), bytes(50_001)),
        (info("._good.jpg"), IMAGE),
        (sparse, b""),
    ]
    found = scan(home(tmp_path, tar_bytes(members)))
    assert found.parts["train"].names == b"good.jpg"
    reasons = dict(found.rejects)
    assert reasons == {
        "a/good.jpg": "a second member of this name",
        "a/../../x.jpg": "a name that leads out of the tar",
        "a/b/../../x.jpg": "a name that leads out of the tar",
        "a/link.jpg": "not a regular file",
        "a/hard.jpg": "not a regular file",
        "a/pipe.jpg": "not a regular file",
        "a/large.jpg": "50.0 kB are too much for an image (at most 50.0 kB)",
        "a/._good.jpg": "hidden file",
        "a/sparse.jpg": "not a regular file",
    }


def test_a_huge_file_in_a_class_folder(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    for i in range(2):
        (tmp_path / "set" / "a" / f"{i}.jpg").write_bytes(IMAGE)
    with (tmp_path / "set" / "a" / "large.jpg").open("wb") as file:
        file.truncate(300 * 2**20)  # takes no room
    out = make_split(tmp_path / "set", tmp_path / "out", factor=4, size=16, val_per_class=0)
    assert '"reason": "314.6 MB are too much for an image (at most 268.4 MB)"' in (out / "rejects.jsonl").read_text()


def test_outer_members_that_are_no_class(tmp_path: Path) -> None:
    inner = tar_bytes([(info("0.jpg"), IMAGE)])
    path = tmp_path / "set.tar"
    members = [("a.tar", inner), ("../b.tar", inner), ("readme.txt", b"x"), ("deeper/c.tar", inner)]
    path.write_bytes(tar_bytes([(info(name), data) for name, data in members]))
    found = scan(path)
    assert found.classes == ("a", "c")
    assert dict(found.rejects) == {"../b.tar": "a name that leads out of the tar", "readme.txt": "not in a class"}
    path.write_bytes(tar_bytes([(info("a.tar"), inner), (info("val/a.tar"), inner)]))
    with pytest.raises(SourceError, match="holds two tars of the class a: keep one"):
        scan(path)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("home", HOMES)
def test_strange_names(home: Callable[[Path, bytes], Path], form: int, tmp_path: Path) -> None:
    names = ["with space.jpg", "two.dots.v2.jpg", "ünï-写真.jpg", "x" * 296 + ".jpg", "tab\there.jpg", "noending"]
    found = scan(home(tmp_path, tar_bytes([(info(name), IMAGE) for name in names], form)))
    entries = found.parts["train"]
    keys = {found.key(entries, i) for i in range(len(entries))}
    assert keys == {"a/" + name.replace("\t", "\\t") for name in names}
    assert found.rejects == ()


def test_strange_keys_and_doubles_in_webdataset(tmp_path: Path) -> None:
    source = tmp_path / "set"
    source.mkdir()
    names = ["with space", "two.dots.v2", "ünï-写真", "y" * 296, "deeper/key"]
    members = [(info(f"{name}.{end}"), data) for name in names for end, data in (("cls", b"0"), ("jpg", IMAGE))]
    members += [
        (info("double.jpg"), IMAGE),
        (info("double.png"), IMAGE),
        (info("double.cls"), b" 1\n"),
        (info("nolabel.jpg"), IMAGE),
        (info("noimage.cls"), b"1"),
        (info("words.jpg"), IMAGE),
        (info("words.cls"), b"many\nwords"),
        (info("negative.jpg"), IMAGE),
        (info("negative.cls"), b"-3"),
        (info("link.jpg", tarfile.SYMTYPE, link="double.jpg"), b""),
        (info("link.cls"), b"0"),
        (info("../out.jpg"), IMAGE),
        (info("../out.cls"), b"0"),
        (info("extra.txt"), b"never mind"),
    ]
    (source / "s.tar").write_bytes(tar_bytes(members))
    found = scan(source)
    entries = found.parts["train"]
    assert {found.key(entries, i) for i in range(len(entries))} == {f"0/{n}.jpg" for n in names} | {"1/double.jpg"}
    assert dict(found.rejects) == {
        "s.tar/double.png": "a second image of this key",
        "s.tar/nolabel.jpg": "an image without a label (.cls, or .json with a label)",
        "s.tar/noimage": "a label without an image",
        "s.tar/words.jpg": "its label is no text of one line",
        "s.tar/negative.jpg": "its label -3 is the index of no class",
        "s.tar/link.jpg": "not a regular file",
        "s.tar/../out.jpg": "a name that leads out of the tar",
        "s.tar/../out.cls": "a name that leads out of the tar",
    }


def test_a_tar_that_is_cut_after_its_scan(tmp_path: Path) -> None:
    path = in_tar_of_tars(tmp_path, tar_bytes([(info("0.jpg"), IMAGE)]))
    source = find_source(path)
    entries = source.scan().parts["train"]
    assert source.read("train", "a", entries, 0) == IMAGE
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(OSError, match="is cut short"):
        source.read("train", "a", entries, 0)


def test_damage_is_one_sentence_on_the_command_line(tmp_path: Path) -> None:
    path = in_tar_of_tars(tmp_path, tar_bytes([(info("0.jpg"), IMAGE)])[:-11_000])
    command = ("spectral-prep", "split", "--factor", "4", path, "--out", tmp_path / "out")
    assert "a.tar in " in fails(*command)
    assert not (tmp_path / "out").exists()


def outcome(window: RangeReader) -> tuple[list[tuple[bytes, int, int]], str]:
    """The images of a tar, or the sentence that it ends in."""
    try:
        return list_images(window, "t.tar", "", []), ""
    except SourceError as error:
        return [], str(error)


@given(st.integers(0, 3000), st.integers(0, 255), st.integers(0, 3000))
def test_any_damage_to_a_tar_is_a_sentence_or_seen_as_other_members(place: int, value: int, cut: int) -> None:
    """No header, however wrong, ends in a traceback or an endless scan."""
    members = {"x" * 120 + ".jpg": b"0" * 600, "b.jpg": b"1", "c.jpg": b"23"}
    whole = bytearray(tar_bytes([(info(name), data) for name, data in members.items()]))
    whole[place % len(whole)] = value
    data = bytes(whole[: len(whole) - cut])

    def fetch(start: int, length: int) -> bytes:
        return data[start : start + length]

    with mock.patch("spectral_shards.preprocess.sources.tar_reader._plain_member", return_value=None):
        wanted = outcome(RangeReader(fetch, 0, len(data), (1, 1)))
    for ahead in ((1024, 1024), (512, 4096)):  # the fast reading of headers sees what tarfile sees
        assert outcome(RangeReader(fetch, 0, len(data), ahead)) == wanted


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_damage_to_a_matlab_file_is_a_value_error(data: bytes, place: int) -> None:
    head = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    for wrong in (data, head + data, head + b"\x0e\0\0\0" + len(data).to_bytes(4, "little") + data):
        with suppress(ValueError):
            assert isinstance(read_mat(wrong), dict)


def test_forms_are_made_as_others_make_them(tmp_path: Path) -> None:
    """The fixtures' own devkit is read by the small reader as by SciPy."""
    scipy_io = pytest.importorskip("scipy.io")
    forms.devkit(tmp_path / "kit.tar.gz", ["n2", "n1"], ["n1"])
    with tarfile.open(tmp_path / "kit.tar.gz") as tar:
        file = tar.extractfile(f"{forms.DEVKIT}/data/meta.mat")
        data = file.read() if file else b""
    wanted = scipy_io.loadmat(io.BytesIO(data), squeeze_me=True)["synsets"]
    found = read_mat(data)["synsets"]
    assert [s["WNID"] for s in found] == [str(s["WNID"]) for s in wanted] == ["n2", "n1", "n00000000"]
    assert [s["ILSVRC2012_ID"][0] for s in found] == [1, 2, 3]
    assert found[0]["words"] == "name of n2, café"
