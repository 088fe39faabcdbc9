"""The ledger: the truth about every image, what people are to be told, and what goes again."""
