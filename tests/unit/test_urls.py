"""URLs of databases and of NATS: what is read of them, and what is said, without a password, of one that is wrong."""

import pytest

from orchestrator.settings import BadSettings, load_settings
from outbox.database_url import read_url


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("sqlite:///shop.db", "sqlite+aiosqlite:///shop.db"),
        ("sqlite:////var/shop.db", "sqlite+aiosqlite:////var/shop.db"),
        ("postgresql://ada:s3cret@db/shop", "postgresql+asyncpg://ada:s3cret@db/shop"),
        ("postgresql://ada:p%40s%2Fs@db:6432/shop", "postgresql+asyncpg://ada:p%40s%2Fs@db:6432/shop"),
        ("postgresql://ada@db/shop?sslmode=require", "postgresql+asyncpg://ada@db/shop?ssl=require"),
        ("postgresql+asyncpg://ada@db/shop?ssl=disable", "postgresql+asyncpg://ada@db/shop?ssl=disable"),
    ],
)
def test_a_url_is_read(text: str, read: str) -> None:
    assert read_url(text).render_as_string(hide_password=False) == read


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("shop.db", "it is not a database URL: write sqlite:///path"),
        ("mysql://ada:s3cret@db/shop", "'mysql' is no database that is known here: write sqlite:///path"),
        ("sqlite://shop.db", "three slashes, and four before an absolute path: sqlite:///shop.db"),
        ("postgresql://ada:s3cret@s/s3cret@db/shop", "a password with @, / or : in it is written with %40"),
        ("postgresql://ada:s3cret@db/shop?channel_binding=require", "nothing is known of 'channel_binding'"),
    ],
)
def test_what_is_wrong_is_said_with_the_setting_and_without_the_password(
    monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    monkeypatch.setenv("SAGA_ORDER_DATABASE_URL", text)
    with pytest.raises(BadSettings) as caught:
        load_settings()
    told = str(caught.value)
    assert told.startswith("SAGA_ORDER_DATABASE_URL: ")
    assert reason in told
    assert "s3cret" not in told


@pytest.mark.parametrize("text", ["http://host:4222", "nats://one:4222,redis://two"])
def test_what_is_not_nats_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SAGA_NATS_URL", text)
    with pytest.raises(BadSettings, match="is not NATS: write nats://host:4222"):
        load_settings()
