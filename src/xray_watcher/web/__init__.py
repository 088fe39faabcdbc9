"""The HTTP API and the pages: a process of its own, which reads the ledger and drops uploads."""
