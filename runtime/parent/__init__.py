"""The courier on the parent instance: relays ingress and egress, buys tickets, shows what the enclave reports.

Runs outside the enclave, which trusts it in nothing: it moves ciphertext and holds no key of the enclave's. It trusts the enclave in
nothing either.
"""
