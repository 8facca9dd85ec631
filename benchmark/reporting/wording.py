"""Numbers in sentences: one has another form of the words around it than many."""


def counted(number: int, noun: str) -> str:
    """`1 task`, `3 tasks`."""
    return f"{number} {form(number, noun, f'{noun}s')}"


def form(number: int, one: str, many: str) -> str:
    """The word that fits the number: "is" for 1, "are" for any other."""
    return one if number == 1 else many
