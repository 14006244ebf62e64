"""What the command line tells in one message: the user can fix it, or has to know it."""


class UsageError(ValueError):
    """Bad input, told in one message: what was expected, what was got, what is valid, how to fix.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


class DivergedError(UsageError):
    """A network that puts out nan: a result of its method, though one without figures."""
