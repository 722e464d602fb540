"""What runs inside the enclave, measured: the attester. It trusts the kernel and the NSM below it, and nothing that the parent says."""
