"""The exceptions of the package: each is a clear sentence that names the file or argument and the remedy."""


class SempartError(ValueError):
    """Bad input or a missing resource. The ``sempart`` command prints the message and exits with 2."""


class UnreadableError(SempartError):
    """An image file that is there but is damaged, truncated or none. Some loops skip such a file and go on."""


class TrainingError(SempartError):
    """The numbers went wrong: a loss or weights that are not finite, or masks that became constant.

    ``log`` holds the rows of the training so far, that of the collapse included.
    """

    log: tuple[dict, ...] = ()
