from typing import Any

def split(
    pixels: Any, out: Any, color: Any, weights: Any, places: Any, counts: Any, grid: int, sums: int, again: int, /
) -> None: ...
