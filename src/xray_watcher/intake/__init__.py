"""Meets the file system: finds, claims, decodes and files images."""
