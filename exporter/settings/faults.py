"""What is wrong with settings: one line for each fault, without any part of a secret."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)

# Characters of a wrong value that its line still shows.
_MOST_SHOWN = 60


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a variable. Its text holds no part of a secret."""

    variable: str
    problem: str
    setting: str | None = None
    """Name of the setting that has no usable value because of it."""
    fatal: bool = True
    """Whether the service must not run with it (see also `settings.FALLBACKS`)."""

    def __str__(self) -> str:
        return f"{self.variable}: {self.problem}"


class SettingsError(ValueError):
    """The settings can't be used; `problems` says why, one line for each fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def validate(
    model: type[Model], given: Mapping[str, Any], secrets: Collection[str]
) -> tuple[Model, list[Fault]]:
    """Validate values; return a model that leaves out the wrong ones, and the faults."""
    try:
        return model(**given), []
    except ValidationError as error:
        faults = []
        for problem in error.errors(include_url=False):
            name, *where = (str(part) for part in problem["loc"])
            text = problem["msg"].removeprefix("Value error, ")
            if where:
                text = f"{'.'.join(where)}: {text}"
            value = given.get(name)
            if name not in secrets and isinstance(value, str) and len(value) <= _MOST_SHOWN:
                text += f" (it is {value!r})"
            faults.append(Fault(name.upper(), " ".join(text.split()), name))
    wrong = {fault.setting for fault in faults}
    return model(**{name: value for name, value in given.items() if name not in wrong}), faults
