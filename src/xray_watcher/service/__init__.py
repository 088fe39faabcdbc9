"""The service: put together, run, looked after, and started again for new settings."""
