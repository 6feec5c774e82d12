"""compose.yaml speaks of roles and settings that exist. (Nothing here starts a container.)"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.settings import ROLES, Settings

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
    return loaded


def test_every_role_runs_with_two_replicas(compose: dict[str, Any]) -> None:
    for role in ROLES:
        service = compose["services"][role]
        assert service["command"] == ["run", role]
        assert service["deploy"]["replicas"] == 2


def test_every_role_is_asked_where_it_answers(compose: dict[str, Any]) -> None:
    for role in ROLES:
        service = compose["services"][role]
        host, port = service["environment"]["SAGA_HEALTH_ADDRESS"].split(":")
        assert host == "0.0.0.0"
        *command, script = service["healthcheck"]["test"]
        assert command == ["CMD", "python", "-c"]
        assert f'"http://127.0.0.1:{port}/readyz"' in script
        compile(script, role, "exec")


def test_postgresql_is_healthy_when_it_takes_connections_and_not_while_it_initialises(compose: dict[str, Any]) -> None:
    """Until its databases are made it listens on a socket alone."""
    assert "--host=127.0.0.1" in compose["services"]["postgres"]["healthcheck"]["test"]


def test_every_variable_is_a_setting(compose: dict[str, Any]) -> None:
    given = {
        name for service in compose["services"].values() for name in service.get("environment", {}) if "SAGA_" in name
    }
    assert given <= {f"SAGA_{name.upper()}" for name in Settings.model_fields}
    assert {f"SAGA_{role.upper()}_DATABASE_URL" for role in ROLES} <= given


def test_every_database_that_is_named_is_created(compose: dict[str, Any]) -> None:
    script = compose["configs"]["databases"]["content"].replace('"', "")
    environment = compose["services"]["orchestrator"]["environment"]
    for role in ROLES:
        database = environment[f"SAGA_{role.upper()}_DATABASE_URL"].rpartition("/")[2]
        assert f"CREATE DATABASE {database};" in script


def test_streams_have_as_many_copies_as_there_are_brokers(compose: dict[str, Any]) -> None:
    brokers = [name for name in compose["services"] if name.startswith("nats-")]
    assert len(brokers) == 3
    assert compose["services"]["order"]["environment"]["SAGA_STREAM_REPLICAS"] == str(len(brokers))
    for name in brokers:
        assert f"--server_name={name}" in compose["services"][name]["command"]
