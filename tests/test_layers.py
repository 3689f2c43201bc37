"""Where a value of a setting comes from, which layer wins, and all that is wrong at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trioserver import Settings, SettingsError
from trioserver._layers import FIELDS, Layers, env_name, flag

if TYPE_CHECKING:
    from pathlib import Path

# A value of each setting that is not the default, as text and as it is kept.
SAMPLES: dict[str, tuple[str, Any]] = {
    "bind": ("127.0.0.1:0", ("127.0.0.1:0",)),
    "worker_num": ("2", 2),
    "task_worker_num": ("3", 3),
    "max_queued_tasks": ("7", 7),
    "max_queued_bytes": ("1000", 1000),
    "max_task_size": ("100", 100),
    "max_tasks_per_connection": ("5", 5),
    "task_timeout": ("1.5", 1.5),
    "task_concurrency": ("3", 3),
    "task_window": ("1", 1),
    "task_max_request": ("200", 200),
    "task_max_memory": ("100000000", 100_000_000),
    "max_request": ("1000", 1000),
    "worker_timeout": ("2.5", 2.5),
    "max_conn": ("20", 20),
    "package_max_length": ("4096", 4096),
    "max_wait_time": ("0.5", 0.5),
    "backlog": ("9", 9),
    "pid_file": ("server.pid", "server.pid"),
    "control": ("unix:/run/server", "unix:/run/server"),
    "reload": ("true", True),
    "log_level": ("debug", "debug"),
}
UNKNOWN_VARIABLE = "unknown setting in the environment"


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """A TOML file's path."""
    return tmp_path / "server.toml"


def problems_of(layers: Layers) -> list[str]:
    """What the layers are refused with."""
    with pytest.raises(SettingsError) as raised:
        layers.merge()
    return str(raised.value).splitlines()


def as_toml(value: object) -> str:
    """``value`` as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(list(value) if isinstance(value, tuple) else value)


def test_every_setting_has_a_sample() -> None:
    """So that no new setting goes untested here."""
    assert list(SAMPLES) == list(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_can_be_set_in_every_layer(name: str, toml: Path) -> None:
    """TOML, environment and flags know each setting, and the value remembers which one it was."""
    text, value = SAMPLES[name]
    toml.write_text(f"{name} = {as_toml(value)}\n")
    in_toml, in_environment, in_flags = Layers(), Layers(), Layers()
    in_toml.add_toml(str(toml))
    in_environment.add_environment({env_name(name): text})
    in_flags.add_flags({name: [text]})

    for layers, origin in (
        (in_toml, str(toml)),
        (in_environment, f"TRIOSERVER_{name.upper()}"),
        (in_flags, f"--{name.replace('_', '-')}"),
    ):
        settings, origins = layers.merge()
        assert settings == Settings(**{name: value})
        assert type(getattr(settings, name)) is type(value)
        assert origins == {known: origin if known == name else "default" for known in FIELDS}


def test_layers_rise_from_code_to_flags(toml: Path) -> None:
    """Each layer is above the one before, setting by setting."""
    toml.write_text("task_worker_num = 2\nmax_conn = 2\nbacklog = 2\n")
    layers = Layers()
    layers.add_code(
        Settings(task_worker_num=1, max_conn=1, backlog=1, max_queued_tasks=1), "settings of app"
    )
    layers.add_toml(str(toml))
    layers.add_environment({"TRIOSERVER_TASK_WORKER_NUM": "3", "TRIOSERVER_MAX_CONN": "3"})
    layers.add_flags({"task_worker_num": ["4"]})

    settings, origins = layers.merge()

    assert settings == Settings(task_worker_num=4, max_conn=3, backlog=2, max_queued_tasks=1)
    assert origins == {
        **dict.fromkeys(FIELDS, "default"),
        "task_worker_num": flag("task_worker_num"),
        "max_conn": env_name("max_conn"),
        "backlog": str(toml),
        "max_queued_tasks": "settings of app",
    }


def test_a_default_in_a_higher_layer_wins() -> None:
    """Asking for the default from outside undoes what the code has."""
    layers = Layers()
    layers.add_code(Settings(task_worker_num=4), "settings of app")
    layers.add_flags({"task_worker_num": ["0"]})

    settings, origins = layers.merge()

    assert settings.task_worker_num == 0
    assert origins["task_worker_num"] == "--task-worker-num"


def test_lists_have_their_spelling_in_every_layer(toml: Path) -> None:
    """A TOML list or text, commas in the environment, repeated flags."""
    toml.write_text('bind = ["127.0.0.1:1", "127.0.0.1:2"]\n')
    listed, single, comma, repeated = Layers(), Layers(), Layers(), Layers()
    listed.add_toml(str(toml))
    toml.write_text('bind = "127.0.0.1:1"\n')
    single.add_toml(str(toml))
    comma.add_environment({"TRIOSERVER_BIND": "127.0.0.1:1, 127.0.0.1:2"})
    repeated.add_flags({"bind": ["127.0.0.1:1", "127.0.0.1:2"]})

    both = ("127.0.0.1:1", "127.0.0.1:2")
    assert listed.merge()[0].bind == both
    assert single.merge()[0].bind == ("127.0.0.1:1",)
    assert comma.merge()[0].bind == both
    assert repeated.merge()[0].bind == both


def test_of_a_repeated_flag_the_last_one_counts() -> None:
    """Where a setting is one value, as command lines have it."""
    layers = Layers()
    layers.add_flags({"max_conn": ["1", "2"]})
    assert layers.merge()[0].max_conn == 2


def test_other_variables_are_nobodys_business() -> None:
    """Only those that begin with TRIOSERVER_ are looked at."""
    layers = Layers()
    layers.add_environment({"MAX_CONN": "x", "trioserver_max_conn": "x", "TRIOSERVERMAX": "x"})
    assert layers.merge()[0] == Settings()


def test_all_errors_of_all_layers_are_reported_together(toml: Path) -> None:
    """Each says where it is from, also if a layer above has a value that is right."""
    toml.write_text('max_con = 5\nbacklog = "many"\nlog_level = "debug"\n')
    layers = Layers()
    layers.add_toml(str(toml))
    layers.add_environment(
        {"TRIOSERVER_TASKS_NUM": "4", "TRIOSERVER_MAX_WAIT_TIME": "", "TRIOSERVER_MAX_CONN": "9"}
    )
    layers.add_flags({"worker_num": ["0"], "package_max_length": ["2M"], "backlog": ["5"]})
    layers.refuse("unknown argument '--x'")

    assert problems_of(layers) == [
        f"{toml}: unknown setting 'max_con' (did you mean 'max_conn'?)",
        f"{toml}: backlog must be a whole number: 'many'",
        "TRIOSERVER_MAX_WAIT_TIME: max_wait_time must be a number: ''",
        f"{UNKNOWN_VARIABLE}: TRIOSERVER_TASKS_NUM (did you mean 'TRIOSERVER_TASK_WORKER_NUM'?)",
        "--worker-num: worker_num must be from 1 to 1000: 0",
        "--package-max-length: package_max_length must be a whole number: '2M'",
        "unknown argument '--x'",
    ]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("bind", "localhost:x", "bind has a bad address: a port is a number from 0 to 65535:"),
        ("task_worker_num", "1.5", "task_worker_num must be a whole number: '1.5'"),
        ("task_worker_num", "9" * 5000, "task_worker_num must be a whole number: '999"),
        ("max_wait_time", "nan", "max_wait_time must be >= 0 and finite: nan"),
        ("max_wait_time", "1e999", "max_wait_time must be >= 0 and finite: inf"),
        ("log_level", "INFO", "log_level must be one of debug, info, warning, error: 'INFO'"),
    ],
)
def test_text_that_is_no_value_is_refused(name: str, text: str, problem: str) -> None:
    """From the environment and from flags alike."""
    layers = Layers()
    layers.add_environment({env_name(name): text})
    layers.add_flags({name: [text]})

    in_environment, in_flags = problems_of(layers)

    assert in_environment.startswith(f"{env_name(name)}: {problem}")
    assert in_flags.startswith(f"{flag(name)}: {problem}")


def test_a_variable_in_lower_case_is_not_a_setting() -> None:
    """The variable is compared as it stands, and the right one is named."""
    layers = Layers()
    layers.add_environment({"TRIOSERVER_max_conn": "5"})
    (line,) = problems_of(layers)
    assert line.startswith(f"{UNKNOWN_VARIABLE}: TRIOSERVER_max_conn")


def test_a_missing_toml_file_is_named(toml: Path) -> None:
    """With the system's reason."""
    layers = Layers()
    layers.add_toml(str(toml))
    assert problems_of(layers) == [f"cannot read {toml}: No such file or directory"]


def test_a_directory_is_no_toml_file(tmp_path: Path) -> None:
    """With the system's reason."""
    layers = Layers()
    layers.add_toml(str(tmp_path))
    assert problems_of(layers) == [f"cannot read {tmp_path}: Is a directory"]


@pytest.mark.parametrize("text", [b"max_conn = \n", b"max_conn = 1\nmax_conn = 2\n", b"\xff"])
def test_a_file_that_is_not_toml_is_named(toml: Path, text: bytes) -> None:
    """In one line, whatever is wrong with it."""
    toml.write_bytes(text)
    layers = Layers()
    layers.add_toml(str(toml))
    (line,) = problems_of(layers)
    assert line.startswith(f"{toml} is not TOML: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('task_worker_num = "4"', "task_worker_num must be a whole number: '4'"),
        ("task_worker_num = true", "task_worker_num must be a whole number: True"),
        ("task_worker_num = 4.0", "task_worker_num must be a whole number: 4.0"),
        ("max_wait_time = inf", "max_wait_time must be >= 0 and finite: inf"),
        ("max_wait_time = 12:00:00", "max_wait_time must be a number: datetime.time(12, 0)"),
        ("bind = [1]", "bind must be a list of texts: (1,)"),
        ("bind = []", "bind must have at least one address"),
        ("bind = {a = 1}", "bind must be a list of texts: {'a': 1}"),
        ("[max_conn]\na = 1", "max_conn must be a whole number: {'a': 1}"),
    ],
)
def test_a_wrong_type_in_toml_is_refused(toml: Path, text: str, problem: str) -> None:
    """TOML has types, and nothing is guessed."""
    toml.write_text(text)
    layers = Layers()
    layers.add_toml(str(toml))
    assert problems_of(layers) == [f"{toml}: {problem}"]


def test_a_table_is_an_unknown_setting(toml: Path) -> None:
    """Settings stand at the top level of the file."""
    toml.write_text("[trioserver]\nmax_conn = 5\n")
    layers = Layers()
    layers.add_toml(str(toml))
    assert problems_of(layers) == [f"{toml}: unknown setting 'trioserver'"]
