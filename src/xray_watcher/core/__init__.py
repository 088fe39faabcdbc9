"""Decides with the standard library alone; never uses disk, clock or network."""
