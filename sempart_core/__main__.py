"""``python -m sempart_core`` is the ``sempart`` command."""

from .cli import main

if __name__ == "__main__":
    main()
