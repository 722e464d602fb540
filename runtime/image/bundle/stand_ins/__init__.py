"""Modules of the bundle that stand in for Python's own of the same name. Nothing here is imported by the runtime from this place."""
