"""Removes what is older than the configuration allows."""
