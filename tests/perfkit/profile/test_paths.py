"""Paths as people may see them."""

import asyncio

import pytest

from perfkit.profile.paths import short_path


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("<string>", "<string>"),
        ("/tmp/ipykernel_42/123.py", "<notebook cell>"),
        ("package/module.py", "package/module.py"),
        ("../home/module.py", "module.py"),
        ("/home/me/.venv/lib/python3.13/site-packages/zmq/poll.py", "zmq/poll.py"),
        ("/elsewhere/lib/python3.13t/asyncio/events.py", "asyncio/events.py"),
        ("/home/me/secret/module.py", "module.py"),
        (asyncio.__file__, "asyncio/__init__.py"),
    ],
)
def test_a_path_is_shown_as_its_package_sees_it(path: str, short: str) -> None:
    assert short_path(path) == short
