"""The first steps of the first process."""
