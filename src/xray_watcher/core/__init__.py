"""Decides: standard library only, told the time; never touches disk, clock or network."""
