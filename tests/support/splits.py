"""Small splits through the library, and what is in them."""

from pathlib import Path

from spectral_shards.preprocess.config import SplitConfig
from spectral_shards.preprocess.split.job import prepare, split
from spectral_shards.shards_manifest.runtime.executors import Backend
from support.forms import OPTIONS

ROOT = Path(__file__).parents[2]
SUB4 = {
    "factor": 4,
    "size": 24,
    "transform": "dct2",
    "samples_per_block": 8,
    "samples_per_shard": 24,
    "val_per_class": 5,
}
SHARED = ROOT.parent / "shared" / "data"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def split_of(out: Path) -> dict[str, bytes]:
    """Shards, tables and rejects of a split: all but what says where it came from."""
    return {name: data for name, data in tree(out).items() if not name.endswith(("plan.json", "scan.bin", "t.json"))}


def make_split(source: Path | str, out: Path, jobs: int = 1, **options: object) -> Path:
    """Split through the library."""
    split(prepare(source, SplitConfig(**options)), out, Backend(jobs=jobs))  # type: ignore[arg-type]
    return out


def splits(url: str, out: Path) -> dict[str, bytes]:
    """The split of what lies at a URL."""
    return split_of(make_split(url, out, **OPTIONS))
