"""Thin I/O on trio: endpoints, an accept loop, relaying, TLS, small HTTP messages. No roles, no secrets of its own, no policy.

Runs everywhere, inside the enclave too. Every byte a peer sends is hostile: what is read is bounded before it is kept, and each
error that a peer can cause is in `serve.CONNECTION_ERRORS`. Deadlines belong to the callers unless a function says otherwise.
"""
