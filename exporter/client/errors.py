"""The client's errors.

ClientError            the exporter could not be reached, or did not take or answer something
└── ArgumentError      a value that the caller passed is refused; the text begins with its name
"""


class ClientError(Exception):
    """Report that a call or a question failed. The text says why."""


class ArgumentError(ClientError):
    """Report that an argument is refused. The text begins with the argument's name."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
