"""The client: runs at the user, as the relying party that connects to an enclave and wants to know what it is talking to."""
