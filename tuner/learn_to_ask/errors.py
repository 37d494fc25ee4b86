"""The exceptions that a user is meant to read: what is wrong, or used up, and what to do next."""


class UserError(Exception):
    """Unusable input or settings.

    The message names the file, line, key or flag at fault and the next step. Command lines print it as
    one line and exit with code 2 (see `cli.run`); nothing else catches it.
    """


class BudgetReachedError(Exception):
    """A run spent what it may; everything that is finished is kept, and a later run can go on.

    Command lines print it as one line and exit with code 1 (see `cli.run`).
    """
