"""Progress of a split."""

from __future__ import annotations

from ...shards_manifest.runtime.cli_runner import human_bytes
from ...shards_manifest.runtime.progress import ProgressLine
from .shard_row import RowRecord


class SplitProgress:
    """Counts images, rejects and bytes as rows are committed, and shows them.

    Args:
        progress: Shows them, by images of the whole split.
    """

    def __init__(self, progress: ProgressLine) -> None:
        self._progress = progress
        self._rejects = self._bytes = 0

    def __call__(self, record: RowRecord, images: int, new: bool) -> None:
        """Count a committed row.

        Args:
            record: The row.
            images: Images that were planned for it.
            new: False if an earlier run had written it.
        """
        self._rejects += len(record.rejects)
        if not new:
            self._progress.skip(images)
            return
        self._bytes += sum(band.shard.bytes for band in record.bands)
        self._progress(images, f"{self._rejects} rejects, {human_bytes(self._bytes)} written")
