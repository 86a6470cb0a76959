from typing import Any

def deflate(data: Any, plane: int) -> bytes:
    """The bytes of a buffer as a raw DEFLATE stream; planes of `plane` bytes may get codes of their own."""
