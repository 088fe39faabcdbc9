"""The settings: what there is, where it comes from, and what only the whole can show."""
