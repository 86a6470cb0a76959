"""What must not be printed of a URL: user names, passwords and queries."""

from __future__ import annotations

import re


def hidden(text: str) -> str:
    """Return `text` without the user names, passwords and queries of the URLs in it."""
    text = re.sub(r"(\w+:/{0,2})[^\s/\"'<>]*@", r"\1", text)
    return re.sub(r"(https?:[^\s?\"'<>]*)\?[^\s\"'<>]*", r"\1?...", text, flags=re.IGNORECASE)
