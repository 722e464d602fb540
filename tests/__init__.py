"""The project's tests: pure ones beside what they test, whole-system ones in tests/system."""
