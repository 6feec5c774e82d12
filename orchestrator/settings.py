"""Settings: environment variables named `SAGA_…`, then what a running `saga dev` has written down, then defaults."""

import json
import os
import re
from pathlib import Path
from typing import Any, Final, Literal

import psutil
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from outbox.database_url import read_url
from outbox.faults import faults_from

ROLES: Final = ("orchestrator", "order", "inventory", "payment")
DEV_FILE: Final = "dev.json"
"""In the data folder: where a running `saga dev` is to be found."""


class BadSettings(Exception):
    """A setting that cannot be used. Says which one, and how it should look."""


class Settings(BaseSettings):
    """Everything that can be configured. URLs that are not given are found in, or made of, the data folder."""

    model_config = SettingsConfigDict(env_prefix="SAGA_", extra="ignore")

    data_dir: Path = Field(Path(".amends"), description="where the embedded broker and the SQLite databases live")
    nats_url: str = Field("", description="NATS, as nats://host:4222; several separated by commas")
    orchestrator_database_url: str = Field("", description="sqlite:///file.db or postgresql://user:password@host/name")
    order_database_url: str = ""
    inventory_database_url: str = ""
    payment_database_url: str = ""
    stream_replicas: int = Field(1, ge=1, le=5, description="copies of every stream in the NATS cluster")
    definitions: str = Field(
        "orchestrator.sagas.place_order", description="modules whose sagas are run, separated by commas"
    )
    ack_wait: float = Field(30.0, gt=0, description="seconds after which an unacknowledged message comes again")
    outbox_grace: float = Field(5.0, gt=0, description="seconds after which a sweep publishes what was left behind")
    max_in_flight: int = Field(
        5000,
        ge=0,
        description="sagas of a definition at work, beyond which those that come by themselves wait; 0: all go",
    )
    pool_size: int = Field(5, ge=1, description="connections to PostgreSQL per role")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    health_address: str = Field(
        "", description="host:port where `saga run` and `saga dev` answer /healthz and /readyz; port 0: a free one"
    )
    crash_at: str = Field("", description="for tests: <role>.<point>[:<hit>], dies there by SIGKILL")

    @field_validator("nats_url")
    @classmethod
    def _is_for_nats(cls, value: str) -> str:
        schemes = {one.strip().partition("://")[0] for one in value.split(",") if "://" in one}
        if unknown := schemes - {"nats", "tls", "ws", "wss"}:
            raise ValueError(f"{min(unknown)}:// is not NATS: write nats://host:4222, or several separated by commas")
        return value

    @field_validator(*(f"{role}_database_url" for role in ROLES))
    @classmethod
    def _is_for_a_database(cls, value: str) -> str:
        if value:
            read_url(value)
        return value

    @field_validator("health_address")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]*):\d{1,5}", value):
            raise ValueError("write host:port, as in 127.0.0.1:8080, or [::1]:0 for a free port")
        return value

    @field_validator("crash_at")
    @classmethod
    def _is_a_crash_point(cls, value: str) -> str:
        faults_from(value)
        return value

    def database_url(self, role: str) -> str:
        """The URL of one role's database."""
        given: str = getattr(self, f"{role}_database_url")
        return given or f"sqlite:///{(self.data_dir / f'{role}.db').resolve()}"

    def shown(self) -> dict[str, Any]:
        """Every setting as it is in force, without passwords."""
        shown = self.model_dump(mode="json")
        shown |= {f"{role}_database_url": without_password(self.database_url(role)) for role in ROLES}
        shown["nats_url"] = re.sub(r"//[^/,:@]+@", "//***@", without_password(self.nats_url))  # it may be a token
        return shown


def load_settings(**given: Any) -> Settings:
    """The settings in force; what is `given` comes first. Raises BadSettings."""
    try:
        settings = Settings.model_validate(Settings().model_dump() | given)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        name = "SAGA_" + "_".join(str(part) for part in detail["loc"]).upper()
        reason = detail.get("ctx", {}).get("error", detail["msg"])  # without pydantic's "Value error, "
        given_as = "" if name.endswith("_URL") else f"={detail['input']!r}"  # without what may be a password
        raise BadSettings(f"{name}{given_as}: {reason}") from error
    if settings.nats_url:
        return settings
    return settings.model_copy(
        update={"nats_url": _dev_file(settings.data_dir).get("nats_url") or "nats://127.0.0.1:4222"}
    )


def names_nats() -> bool:
    """Whether the environment says which NATS; else it is that of a `saga dev`."""
    return bool(Settings().nats_url)


def write_dev_file(data_dir: Path, nats_url: str) -> None:
    """Let other commands find this `saga dev`."""
    (data_dir / DEV_FILE).write_text(json.dumps({"nats_url": nats_url, "pid": os.getpid()}))


def remove_dev_file(data_dir: Path) -> None:
    """This `saga dev` is no more."""
    (data_dir / DEV_FILE).unlink(missing_ok=True)


def running_dev(data_dir: Path) -> int | None:
    """The process id of the `saga dev` that runs in this data folder, if one does."""
    try:
        pid = int(_dev_file(data_dir)["pid"])
        born, written = psutil.Process(pid).create_time(), (data_dir / DEV_FILE).stat().st_mtime
    except (KeyError, ValueError, TypeError, OSError, psutil.Error):
        return None
    return pid if born <= written else None  # a younger process has been given the number of one that died


def _dev_file(data_dir: Path) -> dict[str, Any]:
    try:
        content = json.loads((data_dir / DEV_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def without_password(url: str) -> str:
    """The same, to be shown."""
    if "," in url:
        return ",".join(without_password(one) for one in url.split(","))
    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return url.rpartition("@")[2]
