"""What the commands do that are not the service itself."""
