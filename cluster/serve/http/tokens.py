"""Who may do what: bearer tokens from a file that holds only their hashes.

A line of the file is ``sha256hex role name``; empty lines and those that begin with ``#`` are
skipped. The file is read again when it changes, so a token is revoked by removing its line.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import stat
import time
from enum import IntEnum
from hmac import compare_digest
from pathlib import Path
from typing import NamedTuple

from cluster.vocabulary.errors import ClusterError

LOGGER = logging.getLogger(__name__)
#: seconds between two looks at the file
LOOK_EVERY_S = 1.0
NAME_LENGTH_MAX = 64


class Role(IntEnum):
    """What a token allows; each role includes those before it."""

    READ = 1
    SUBMIT = 2
    ADMIN = 3


class Identity(NamedTuple):
    """Who a token belongs to."""

    name: str
    role: Role


#: who asks where no tokens are wanted
ANYBODY = Identity("", Role.ADMIN)


class TokenFileError(ClusterError):
    """A file of tokens that can't be read; the message names the line."""


class Tokens:
    """The tokens of a file. Raises TokenFileError unless it can be read and has one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed_at = self._modified()
        self._known = read_tokens(path)
        if not self._known:
            raise TokenFileError(f"{path} holds no token; see `perfkit serve token --help`")
        self._looked_s = time.monotonic()

    def find(self, secret: str) -> Identity | None:
        """Whose token this is; None if it is nobody's. It takes the same time for all of them."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._look()
        digest = digest_of(secret)
        found = None
        for known, identity in self._known:
            if compare_digest(known, digest):
                found = identity
        return found

    def _modified(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0

    def _look(self) -> None:
        """Read the file again if it has changed; a broken or missing file changes nothing."""
        changed_at = self._modified()
        if changed_at == self._changed_at:
            return
        self._changed_at = changed_at
        try:
            self._known = read_tokens(self._path)
        except TokenFileError as error:
            LOGGER.warning("%s; until then the tokens of before are taken", error)


def digest_of(secret: str) -> str:
    """The hash of a token, as the file holds it."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def read_tokens(path: Path) -> list[tuple[str, Identity]]:
    """The hashes of a file and whose they are; raises TokenFileError with the line at fault, or
    if any user of the machine could add one.
    """
    try:
        lines = path.read_text().splitlines()
        is_open = path.stat().st_mode & stat.S_IWOTH
    except (OSError, UnicodeDecodeError) as error:
        raise TokenFileError(f"the tokens in {path} can't be read: {error}") from None
    if is_open:
        raise TokenFileError(f"anybody can write a token into {path}: chmod o-w {path}")
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                digest, role, name = line.split(maxsplit=2)
                identity = Identity(name.strip()[:NAME_LENGTH_MAX], Role[role.upper()])
                if len(digest) != 64 or int(digest, 16) < 0:
                    raise ValueError
            except (ValueError, KeyError):
                raise TokenFileError(
                    f"{path}, line {number}: expected 'sha256hex role name', the role one of "
                    f"{', '.join(r.name.lower() for r in Role)}; see `perfkit serve token --help`"
                ) from None
            found.append((digest.lower(), identity))
    return found


def make_token(path: Path, name: str, role: Role) -> str:
    """Append a new token to the file, which only its owner may read; returns the token, which is
    kept nowhere. Raises TokenFileError for a bad or taken name.
    """
    if not name.strip() or len(name) > NAME_LENGTH_MAX or not name.isprintable():
        raise TokenFileError(f"a token's name has 1 to {NAME_LENGTH_MAX} printable characters")
    known = read_tokens(path) if path.exists() else []
    if name.strip() in (identity.name for _, identity in known):
        raise TokenFileError(f"{path} has a token named {name!r}; remove its line first")
    secret = secrets.token_urlsafe(32)
    try:
        text = path.read_text() if path.exists() else ""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("a") as file:
            file.write("" if not text or text.endswith("\n") else "\n")
            file.write(f"{digest_of(secret)} {role.name.lower()} {name}\n")
    except OSError as error:
        raise TokenFileError(f"{path} can't be written: {error.strerror}") from None
    return secret
