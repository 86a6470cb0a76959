"""What one folder contains that images can come from: class folders, tars, Parquet files, images."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from .file_filter import has_image_ending, is_system_folder
from .part_names import PartName, folder_part
from .path import SourcePath
from .scratch import GZIPPED
from .val_labels import LIST_NAMES

ARCHIVES = (".tar", *GZIPPED, ".parquet")
# archives of any form, also those that are not read here or not fetched completely
_ANY_ARCHIVE = re.compile(
    r"\.(tar|parquet|tgz|tbz2?|txz|zip|7z|rar|arrow)(\.(gz|xz|zst|bz2|lz4|lzma|z|part|partial|crdownload|download|tmp))?$",
    re.IGNORECASE,
)
_SHARD_NUMBER = re.compile(r"([-_.]of[-_.]\d+|[-_.]\d+)+$")


@dataclass(frozen=True)
class FolderContent:
    """What one folder contains, or some files without a folder.

    Attributes:
        folder: The folder; None for files that the user named.
        files: The files directly in it.
        folders: Names of the folders directly in it, without those of systems and tools.
    """

    folder: SourcePath | None
    files: tuple[SourcePath, ...]
    folders: tuple[str, ...] = ()

    @staticmethod
    def of(path: SourcePath) -> FolderContent:
        """Return the content of a folder, or a file alone."""
        if not path.is_dir():
            return FolderContent(None, (path,))
        folders = tuple(name for name in path.folders() if not is_system_folder(name))
        return FolderContent(path, tuple(path / name for name in path.files()), folders)

    @property
    def path(self) -> SourcePath:
        """The folder, or the first file."""
        return self.folder or self.files[0]

    @property
    def folder_paths(self) -> tuple[SourcePath, ...]:
        """The folders directly in the folder."""
        return tuple(self.folder / name for name in self.folders) if self.folder else ()

    def files_ending(self, *endings: str) -> tuple[SourcePath, ...]:
        """Return the files that end so; in a folder without hidden ones and lists of labels."""
        left_out = LIST_NAMES if self.folder else ()
        return tuple(
            f for f in self.files if f.name.endswith(endings) and not f.name.startswith(".") and f.name not in left_out
        )

    @property
    def tars(self) -> tuple[SourcePath, ...]:
        """Plain tars."""
        return self.files_ending(".tar")

    @property
    def compressed_tars(self) -> tuple[SourcePath, ...]:
        """Tars compressed by gzip."""
        return self.files_ending(*GZIPPED)

    @property
    def parquet(self) -> tuple[SourcePath, ...]:
        """Parquet files; not 00000.parquet beside 00000.tar, which is img2dataset's metadata of the images."""
        numbers = {tar.stem for tar in self.tars if tar.stem.isdecimal()}
        return tuple(file for file in self.files_ending(".parquet") if file.stem not in numbers)

    @property
    def archives(self) -> tuple[SourcePath, ...]:
        """Tars and Parquet files."""
        return self.files_ending(*ARCHIVES)

    @property
    def images(self) -> list[str]:
        """Names of the images directly in the folder."""
        return [file.name for file in self.files if has_image_ending(file.name)]

    def other_archives(self, used: Iterable[SourcePath]) -> list[str]:
        """Return the names of archives of any form that are not among `used`."""
        taken = set(used)
        files = (file for file in self.files if file not in taken and file.name not in LIST_NAMES)
        return [file.name for file in files if _ANY_ARCHIVE.search(file.name) and not file.name.startswith(".")]

    def flat_folder(self) -> SourcePath | None:
        """Return the folder of images without classes: this one, or the one folder images/ in it; None for neither."""
        if self.folder and not self.folders and not self.archives and self.images:
            return self.folder
        if self.folder and [name.lower() for name in self.folders] == ["images"] and not self.images:
            inner = FolderContent.of(self.folder / self.folders[0])
            return inner.folder if inner.images and not inner.folders else None
        return None


def archive_part(name: str) -> PartName:
    """Return the part of a tar or a Parquet file by its name without its ending and shard number."""
    return folder_part(_SHARD_NUMBER.sub("", archive_stem(name)))


def archive_stem(name: str) -> str:
    """Return the name of an archive without its ending."""
    return name.removesuffix(next((ending for ending in ARCHIVES if name.endswith(ending)), ""))
