"""One batch: claimed, decoded, scored, decided, filed and logged; and what a kill left of it."""
