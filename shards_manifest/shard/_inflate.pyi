from typing import Any

SLACK: int

def inflate(data: Any, out: Any) -> int:
    """Inflate one gzip member into a writable buffer, whose last SLACK bytes are working space; the count of bytes.

    -1, with anything in `out`, where the member does not fit, is damaged, or is not of the kind that `_deflate` makes.
    The checksum and the length behind the member are not looked at.
    """
