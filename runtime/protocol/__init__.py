"""Every format that crosses a border: bytes in, values out.

Pure: no trio, sockets, files, clocks or randomness (tests/test_architecture.py keeps it so). Runs in every role. What a decoder is
given came from somebody else and is believed in nothing; what it returns is well formed, and still believed in nothing.
"""
