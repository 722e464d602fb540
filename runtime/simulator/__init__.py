"""The platform without the platform: a simulated NSM under a root of its own, for development and tests.

Never baked into an image and never imported by what is: simulation is chosen by the program that is started. What it signs is worth
nothing to a verifier that trusts AWS's root.
"""
