"""Enclave Runtime: a self-hostable runtime for AWS Nitro Enclaves."""

__version__ = "0.1.0"
