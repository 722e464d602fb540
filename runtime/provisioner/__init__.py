"""The provisioner: runs at the secret owner, as the relying party that releases secrets to measured enclaves.

It trusts its own database, its own keys and the pinned roots of attestation. It believes nothing that a parent or an enclave says
beyond what the evidence proves.
"""
