"""A virtual machine that boots an enclave image file as it is, with a simulated security module and a vsock behind its kernel's drivers."""
