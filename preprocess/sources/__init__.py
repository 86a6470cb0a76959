"""Where images come from. A source scans itself once, then reads any sample at random.

base.py says what a source is; one module for each form; find.py recognises them. What can only be streamed is
expanded once into a scratch folder and read in place there (scratch.py).
"""

from .base import OnProgress, Source, SourceOptions, fingerprint, no_progress
from .detect import find_source
from .scratch import scratch_folder

__all__ = ["OnProgress", "Source", "SourceOptions", "find_source", "fingerprint", "no_progress", "scratch_folder"]
