"""Takes the place of Python's `ctypes.util` in the bundle, which runs /sbin/ldconfig and gcc to find a library.

trio asks it for "pthread" when it is imported. The first process runs no program to learn what the bundle knows.
"""

_LIBRARIES = {"c": "libc.so.6", "m": "libm.so.6", "pthread": "libc.so.6"}


def find_library(name: str) -> str | None:
    """The file of a C library; None for any other."""
    return _LIBRARIES.get(name)
