"""Secrets from files: `NAME_FILE=/run/secrets/x` stands for `NAME`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource


class SettingsError(ValueError):
    """The settings can't be used; `problems` says why, one line for each variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class SecretFiles(PydanticBaseSettingsSource):
    """Read `NAME` from the file that the variable `NAME_FILE` names (environment before `.env`)."""

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        dotenv: PydanticBaseSettingsSource,
        secrets: frozenset[str],
    ) -> None:
        super().__init__(settings_cls)
        self._secrets = secrets
        dotenv_values: Mapping[str, str | None] = getattr(dotenv, "env_vars", {})
        self._variables = {k.upper(): v for k, v in (*dotenv_values.items(), *os.environ.items())}

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._read(field_name), field_name, False

    def _read(self, field_name: str) -> str | None:
        path = self._variables.get(f"{field_name.upper()}_FILE")
        if field_name not in self._secrets or not path:
            return None
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError([f"{field_name.upper()}_FILE: {error}"]) from None

    def __call__(self) -> dict[str, Any]:
        found = {name: self._read(name) for name in self.settings_cls.model_fields}
        return {name: value for name, value in found.items() if value is not None}
