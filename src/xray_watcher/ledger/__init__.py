"""The ledger: the truth about every image, the notices for people, and what is deleted."""
