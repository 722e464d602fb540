"""What the first process owes the machine before anything else runs: modules, heartbeat, mounts, loopback, limits, power off."""
