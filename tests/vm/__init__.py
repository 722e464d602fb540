"""Enclave images, booted in a virtual machine."""
