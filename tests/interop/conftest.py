"""What tests of the running product start from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from namespaces import Namespace, pair
from product import Server, bzimage


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    before = set(Server.running)  # of fixtures that live longer than a test
    yield
    Server.kill(Server.running - before)


@pytest.fixture
def here() -> Iterator[Namespace]:
    """The first of two namespaces with a cable between them."""
    with pair() as (one, _two):
        yield one


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    return bzimage(tmp_path / "vmlinuz")


@pytest.fixture
def state(tmp_path: Path) -> tuple[str, ...]:
    """Options every run here has: an own state directory, nothing fetched, JSON."""
    return ("--state-dir", str(tmp_path / "state"), "--no-fetch", "--json")
