"""Settings from code, a TOML file, the environment and the command line, each above the last.

All that is wrong in any of them is reported together, and each value remembers where it is from.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

import attrs

from trioserver._importing import nearest
from trioserver._settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENV_PREFIX: Final = "TRIOSERVER_"
DEFAULT: Final = "default"

_SWITCHES: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}

FIELDS: Final[dict[str, attrs.Attribute[Any]]] = attrs.fields_dict(Settings)


class Layers:
    """Collects values, where they are from, and what is wrong."""

    def __init__(self) -> None:
        self._values: dict[str, object] = {}
        self._origins = dict.fromkeys(FIELDS, DEFAULT)
        self._problems: list[tuple[str, str]] = []

    def add_code(self, settings: Settings | None, origin: str) -> None:
        """What the app carries, where it is not the default."""
        if settings is None:
            return
        for name, field in FIELDS.items():
            value = getattr(settings, name)
            if value != field.default:
                self._set(name, value, origin)

    def add_inherited(self, values: Mapping[str, object]) -> None:
        """What was in force before this program took over: the whole of it."""
        for name in FIELDS.keys() & values.keys():
            self._set(name, values[name], "before the reload")

    def known(self, name: str) -> object:
        """The value of a setting so far, None if no layer has one."""
        return self._values.get(name)

    def add_toml(self, path: str) -> None:
        """What a TOML file has at its top level."""
        try:
            with open(path, "rb") as file:  # text from the command line, used as it is
                values = tomllib.load(file)
        except OSError as exc:
            self._refuse(path, f"cannot read {path}: {exc.strerror}")
            return
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            self._refuse(path, f"{path} is not TOML: {exc}")
            return
        for name, value in values.items():
            if name in FIELDS:
                self._set(name, value, path)
            else:
                self._refuse(name, f"{path}: unknown setting {name!r}{nearest(name, list(FIELDS))}")

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """What the environment has under ``TRIOSERVER_``; lists have commas."""
        for variable, text in sorted(environ.items()):
            if not variable.startswith(ENV_PREFIX):
                continue
            name = variable.removeprefix(ENV_PREFIX).lower()
            if name not in FIELDS or variable != env_name(name):
                close = nearest(variable, [env_name(known) for known in FIELDS])
                self._refuse(name, f"unknown setting in the environment: {variable}{close}")
            elif isinstance(FIELDS[name].default, tuple):
                self._set(name, tuple(part.strip() for part in text.split(",")), variable)
            else:
                self._set(name, _value_of(text, FIELDS[name].default), variable)

    def add_flags(self, flags: Mapping[str, list[str]]) -> None:
        """What the command line has, by name of the setting; a list may have several."""
        for name, texts in flags.items():
            default = FIELDS[name].default
            value = tuple(texts) if isinstance(default, tuple) else _value_of(texts[-1], default)
            self._set(name, value, flag(name))

    def refuse(self, problem: str) -> None:
        """One more thing that is wrong."""
        self._refuse("", problem)

    def merge(self) -> tuple[Settings, dict[str, str]]:
        """The settings, and where each value is from.

        Raises:
          SettingsError: if anything is wrong anywhere.
        """
        if self._problems:
            raise SettingsError(self._problems)
        return Settings(**self._values), self._origins  # type: ignore[arg-type]  # it checks them

    def _set(self, name: str, value: object, origin: str) -> None:
        """Take a value, or refuse it, even if a layer above has a better one."""
        try:
            Settings(**{name: value})  # type: ignore[arg-type]  # as above
        except SettingsError as exc:
            self._problems += [(name, f"{origin}: {problem}") for _, problem in exc.problems]
        else:
            self._values[name] = value
            self._origins[name] = origin

    def _refuse(self, name: str, problem: str) -> None:
        self._problems.append((name, problem))


def env_name(name: str) -> str:
    """The variable of a setting."""
    return ENV_PREFIX + name.upper()


def flag(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def _value_of(text: str, default: object) -> object:
    """``text`` as a value like ``default``; as it is if it cannot be, for the check to refuse."""
    if isinstance(default, bool):
        return _SWITCHES.get(text.lower(), text)
    try:
        return type(default)(text)  # type: ignore[call-arg]  # int, float or str
    except ValueError:
        return text
