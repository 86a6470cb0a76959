from typing import Any

def deflate(data: Any, plane: int) -> bytes:
    """Compress a buffer to a raw DEFLATE stream.

    Args:
        data: The bytes (any buffer), less than 2 GiB.
        plane: Bytes of one plane, at least 1; planes may get codes of their own.

    Returns:
        The stream, without header and checksum.

    Raises:
        ValueError: If `plane` or the data have another size.
    """
