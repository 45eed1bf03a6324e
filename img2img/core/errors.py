"""What a user did that can't work, said in the user's terms."""

from collections.abc import Sequence


class UserError(ValueError):
    """Something failed for a reason that the user can mend; the text is a sentence with the remedy. Exit code 1."""

    exit_code = 1


class UsageError(UserError):
    """The command or its options are wrong. Exit code 2."""

    exit_code = 2


def list_some(names: Sequence[object], most: int = 5) -> str:
    """The first names of a list, and how many more there are: ``a, b, c (+7 more)``."""
    text = ", ".join(str(name) for name in names[:most])
    return text if len(names) <= most else f"{text} (+{len(names) - most} more)"
