"""Enclave Runtime: a self-hostable runtime for AWS Nitro Enclaves."""
