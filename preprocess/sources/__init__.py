"""Where images come from. A source scans itself once, then reads any sample at random.

base.py defines what a source is. forms.py lists the forms that are known, each with the module that reads it.
detect.py finds out which form lies at a path and which of its folders and files are train and val. What can only be
read as a stream is expanded once into a scratch folder (scratch.py) and read in place there.
"""

from .base import OnProgress, Source, fingerprint, no_progress
from .detect import find_source
from .scratch import scratch_folder

__all__ = ["OnProgress", "Source", "find_source", "fingerprint", "no_progress", "scratch_folder"]
