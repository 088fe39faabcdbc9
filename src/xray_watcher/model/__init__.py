"""Meets torch. Import its modules late: torch and torchxrayvision together cost seconds."""
