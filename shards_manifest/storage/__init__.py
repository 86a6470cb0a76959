"""Bytes in and out: folders, buckets and web servers behind one protocol."""
