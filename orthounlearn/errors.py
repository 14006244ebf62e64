"""The one exception that means "the user can fix this"."""


class UsageError(ValueError):
    """Bad input, told in one message: what was expected, what was got, what is valid, how to fix.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """
