"""Measuring networks on the device: statistics, the process that owns it, its queue."""
