"""Draws chests: films of nobody, for the demonstration, for tests and for trials."""
