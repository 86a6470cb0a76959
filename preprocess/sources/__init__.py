"""Where images come from. A source scans itself once, then reads any sample at random.

base.py says what a source is; one module for each form; find.py recognises them. What can only be streamed is
expanded once into a scratch folder and read in place there (scratch.py).
"""

from .base import Found, Source, SourceOptions, fingerprint, nobody
from .detect import find_source
from .scratch import scratch_folder

__all__ = ["Found", "Source", "SourceOptions", "find_source", "fingerprint", "nobody", "scratch_folder"]
