"""The command line: each command parses, loads the settings and calls; no logic."""
