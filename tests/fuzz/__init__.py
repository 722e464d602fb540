"""Fuzzing without an engine: the table of decoders (decoders.py), the mutations (mutate.py) and the seeds (corpus/)."""
