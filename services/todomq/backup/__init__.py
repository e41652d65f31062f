"""Backups: taken from a running stack, verified, restored into an empty home."""
