"""Decides: imports the standard library only, is told the time, never touches disk, clock or network."""
