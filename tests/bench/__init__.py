"""Measures the runtime's data paths beside other programs that do the same work (README.md here). `scripts/bench` runs it.

Never baked, and no part of the gates but for the tests of its arithmetic: what it prints depends on the machine that it runs on.
"""
