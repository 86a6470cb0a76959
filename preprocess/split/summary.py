"""A scanned source in a few lines: what it was recognised as, so that a wrong reading is seen before the work."""

from __future__ import annotations

from ...shards_manifest.tables import escape
from .job import Job

MOST_NAMES = 5  # of folders and files that are not used


def summary(job: Job) -> list[str]:
    """Return the form of the source, the images and classes of each part, and what is not used."""
    source = job.source
    lines = [f"{source.describe()['name']}: {source.reads()}"]
    classes, total = job.classes, len(job.listing.classes)
    for part, images in sorted(job.samples.items()):
        from_train = ", taken from train" if part not in job.listing.parts else ""
        lines.append(f"  {part}: {images_of_classes(images, classes[part], total)}{from_train}")
    labels = job.listing.parts["train"].label
    if len(labels) > 1 and labels.min() == labels.max() and not job.config.classes:
        name = escape(job.listing.classes[labels[0]])
        lines.append(f"  all images are of one class, {name}: if that is not so, sort them into one folder a class")
    if unused := source.unused():
        more = f" and {len(unused) - MOST_NAMES} more" if len(unused) > MOST_NAMES else ""
        lines.append(f"  not used: {', '.join(unused[:MOST_NAMES])}{more}")
    return lines


def images_of_classes(images: int, classes: int, total: int) -> str:
    """Return the counts in words; a part that lacks some of the classes says so."""
    of = f"{classes}" if classes == total else f"{classes} of the {total}"
    return f"{images} {'image' if images == 1 else 'images'} of {of} {'class' if total == 1 else 'classes'}"
