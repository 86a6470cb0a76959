from typing import Any

SLACK: int

def inflate(data: Any, out: Any) -> int:
    """Decompress one gzip member into a buffer.

    The checksum and the length at the end of the member are not checked.

    Args:
        data: The bytes of the member (any buffer).
        out: A writable buffer; its last SLACK bytes are working space and hold no output.

    Returns:
        The count of bytes written; -1, with any bytes in `out`, if the member does not fit, is damaged, or is not of
        the kind that `_deflate` makes.
    """
