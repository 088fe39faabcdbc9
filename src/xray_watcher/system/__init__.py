"""What is asked of the operating system: files that last, locks, disks, signals, the time."""
