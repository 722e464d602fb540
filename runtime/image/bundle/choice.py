"""What of all that could be taken goes into the bundle. Everything that is decided by hand stands here, with its reason."""

ROOTS = (
    # PID 1, what it loads when its first record is on its way, and its workers.
    *("runtime.enclave.__main__", "runtime.enclave.boot", "runtime.enclave.worker.__main__"),
    # Loaded by name: codecs, what `-m` runs, what compiled parts import.
    *("encodings.aliases", "encodings.utf_8", "encodings.ascii", "encodings.latin_1", "encodings.idna", "runpy"),
    *("cryptography.*", "httptools.*", "_cffi_backend"),
)
"""A name that ends in `.*` is a package with all that is in it."""

WITHOUT = (
    # Of Python itself: named by a function that is never called here, or tried and done without.
    *("asyncio", "concurrent", "multiprocessing"),
    *(
        "distutils",
        "doctest",
        "idlelib",
        "lib2to3",
        "pdb",
        "pydoc",
        "rlcompleter",
        "test",
        "tkinter",
        "tracemalloc",
        "turtle",
        "unittest",
    ),
    *("argparse", "cmd", "code", "codeop", "curses", "getopt", "gettext", "optparse", "pty", "readline", "tty", "webbrowser"),
    *("ftplib", "html", "http.client", "http.cookies", "http.server", "netrc", "smtplib", "urllib.error", "urllib.request", "xml"),
    *("_compat_pickle", "_strptime", "bz2", "csv", "lzma", "pickle", "plistlib", "sqlite3", "tarfile", "zipfile"),
    *("_decimal", "_pydecimal", "_pyio", "decimal", "fractions", "statistics"),
    *("_aix_support", "_bootsubprocess", "_osx_support", "_sysconfigdata__x86_64_linux_gnu", "site", "sysconfig"),
    *("importlib.metadata", "importlib.readers", "importlib.resources"),
    *("email.contentmanager", "email.feedparser", "email.generator", "email.headerregistry", "email._header_value_parser"),
    *("email.iterators", "email.message", "email.parser", "email.policy"),
    # A second OpenSSL: hashes are Python's own, TLS is cryptography's.
    *("_hashlib", "_ssl"),
    # Of others: their tests, what is for other systems, and what needs something of the above.
    *("h11.tests", "trio.__main__", "trio._core._tests", "trio._repl", "trio._tests", "trio._tools", "trio.testing"),
    *("trio._core._generated_io_kqueue", "trio._core._generated_io_windows", "trio._core._io_kqueue", "trio._core._io_windows"),
    *("trio._core._windows_cffi", "trio._subprocess_platform.kqueue", "trio._subprocess_platform.windows", "trio._windows_pipes"),
    *("cffi", "cryptography.hazmat.primitives.serialization.pkcs7", "pycparser"),
)
"""Modules that are left out though an import names them, with all that is below them."""
