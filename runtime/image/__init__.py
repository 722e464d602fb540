"""Runs on the build machine: turns a container image and an enclave.toml into a measured enclave image. So far, its settings."""
