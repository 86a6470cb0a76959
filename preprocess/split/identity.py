"""What a split is: all that determines its bytes, as rows/plan.json and the manifest record it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ...shards_manifest.manifest import VERSIONS, canonical_json, version_of
from ..config import SplitConfig, complete_plan, option_name, ranges

LIST_CHANGED = "the source's list of images has changed"


@dataclass(frozen=True)
class SplitIdentity:
    """All that determines the bytes of a split. It is equal for two runs that may share a destination.

    Attributes:
        version: Version of the format.
        plan: The options, as SplitConfig.to_json gives them.
        source: What the source says of itself, and the digest of its listing.
        tools: Names and versions of what decodes, resizes and compresses.
    """

    version: int
    plan: dict[str, Any]
    source: dict[str, str]
    tools: dict[str, str]

    @staticmethod
    def of(config: SplitConfig, source: dict[str, str], digest: str, tools: dict[str, str]) -> SplitIdentity:
        """Return the identity of a split of a source with this listing's digest."""
        version = version_of(map(config.compression_of, config.bands))
        return SplitIdentity(version, config.to_json(), {**source, "digest": digest}, tools)

    def to_json(self) -> dict[str, Any]:
        """Return the identity as JSON values."""
        return asdict(self)

    def to_bytes(self) -> bytes:
        """Return the bytes of plan.json."""
        return canonical_json(self.to_json())

    def differences(self, recorded: bytes) -> list[str]:
        """Return what differs from the plan.json of an earlier run: a few words for each, none if both are equal.

        Raises:
            ValueError: `recorded` is not JSON.
        """
        earlier = json.loads(recorded)
        if isinstance(earlier, dict) and isinstance(earlier.get("plan"), dict):
            earlier["plan"] = complete_plan(earlier["plan"])
        current = json.loads(self.to_bytes())
        current["plan"] = complete_plan(current["plan"])
        if isinstance(earlier, dict) and earlier.get("version") in VERSIONS:
            earlier["version"] = current["version"]  # follows from the compression, which is compared by itself
        return list(_differences(earlier, current))


def _differences(earlier: Any, current: Any, name: str = "") -> Iterator[str]:
    if isinstance(earlier, dict) and isinstance(current, dict):
        for key in sorted(earlier.keys() | current.keys()):
            inner = option_name(key) if name == "plan" else key if not name else f"{name} {key}"
            yield from _differences(earlier.get(key), current.get(key), inner)
    elif earlier != current:
        if name == "source digest":
            yield LIST_CHANGED
        elif name == "uncompressed":
            there, here = (ranges(bands) for bands in (earlier, current))
            yield f"compression: bands without it are {there} there, {here} here"
        else:
            there, here = ("not given" if value is None else value for value in (earlier, current))
            yield f"{name.replace('_', '-')} {there} there, {here} here"
