"""Where a run computes: the device, and the processes that share a run."""
