"""Numbers in sentences."""


def counted(number: int, thing: str) -> str:
    """Return "1 node", "2 nodes"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def verb(number: int, singular: str, plural: str) -> str:
    """Return the form of a verb that goes with so many."""
    return singular if number == 1 else plural
