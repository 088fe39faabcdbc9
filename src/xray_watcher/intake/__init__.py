"""Meets the file system: finds, claims and files images."""
