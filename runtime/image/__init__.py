"""Runs on the build machine: enclave image files, their measurements and signatures (README.md beside this)."""
