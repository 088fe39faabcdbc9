"""Reports folded from the ledger."""
