"""The traffic of an enclave, in unprivileged worker processes: ingress with TLS that ends here, evidence, the local API, egress.

What comes in was moved by the parent and sent by anybody: PROXY headers, TLS records, HTTP heads and bodies are hostile, and so are
the answers of the customer process. A worker holds TLS keys and nothing else; attestation documents are made by PID 1 for it.
"""
