"""The one exception that a user is meant to read: what is wrong and what to do next."""


class UserError(Exception):
    """Unusable input or settings.

    The message names the file, line, key or flag at fault and the next step. Command lines print it as
    one line and exit with code 2 (see `cli.run`); nothing else catches it.
    """
