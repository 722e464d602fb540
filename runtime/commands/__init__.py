"""The sub-commands of `enclave` that are more than one call: they read files and the clock for the pure parts below them."""
