"""The one exception for bad input: a clear sentence that names the file or argument and the remedy."""


class SempartError(ValueError):
    """Bad input or a missing resource. The ``sempart`` command prints the message and exits with 2."""
