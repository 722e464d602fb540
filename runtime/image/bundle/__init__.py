"""The runtime bundle: the folder that becomes ramdisk 0, made of pinned packages alone (runtime/image/README.md).

Runs on the build machine.
"""
