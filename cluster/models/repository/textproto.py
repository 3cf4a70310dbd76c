"""Reads protobuf's text format, without knowing the messages: names, values and nested messages.

Tolerant, as files written by hand are: separators may be missing, ``<…>`` is ``{…}``, and a field
may repeat. The format is that of https://protobuf.dev/reference/protobuf/textformat-spec/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from cluster.vocabulary.errors import ClusterError

TEXT_LENGTH_MAX = 1 << 20
DEPTH_MAX = 32

#: A field's values in order: texts, for numbers and names too, and messages.
Message: TypeAlias = "dict[str, list[str | Message]]"

_TOKEN = re.compile(
    r"""(?:\s|\#[^\n]*+)*+(?:
        (?P<quoted>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
        |(?P<word>[-+]?\s*[A-Za-z0-9_.][A-Za-z0-9_.+-]*)
        |(?P<mark>[{}<>\[\]:,;/])
        |(?P<end>\Z)
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|(.))")
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CLOSING = {"{": "}", "<": ">"}


class TextprotoError(ClusterError):
    """Text that is not in protobuf's text format; the message names the line."""


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def parse_textproto(text: str) -> Message:
    """The fields of a message, each with its values in order.

    Raises:
        TextprotoError: it is not in protobuf's text format, too long or too deep.
    """
    if len(text) > TEXT_LENGTH_MAX:
        raise TextprotoError(f"it has {len(text):,} characters; at most {TEXT_LENGTH_MAX:,} fit")
    reader = _Reader(list(_tokens(text)))
    return reader.message("")


class _Reader:
    """Reads tokens from the first to the last."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def message(self, closing: str, depth: int = 0) -> Message:
        """The fields up to a closing mark, or up to the end if that is empty."""
        if depth > DEPTH_MAX:
            raise self._error(f"messages are nested more than {DEPTH_MAX} deep")
        found: Message = {}
        while True:
            token = self._next()
            if token.text == closing and token.kind in ("mark", "end"):
                return found
            if token.kind == "mark" and token.text in (",", ";"):
                continue
            found.setdefault(self._name(token), []).extend(self._values(depth))

    def _name(self, token: _Token) -> str:
        if token.text == "[" and token.kind == "mark":  # an extension's name
            parts = []
            while (part := self._next()).text != "]" or part.kind != "mark":
                self._must(part.kind != "end", "an extension's name without ]", part)
                parts.append(part.text)
            return "".join(parts)
        self._must(token.kind == "word", f"expected a field's name, found {token.text!r}", token)
        return token.text

    def _values(self, depth: int) -> Iterator[str | Message]:
        token = self._next()
        colon = token.text == ":" and token.kind == "mark"
        if colon:
            token = self._next()
        if token.kind == "mark" and token.text == "[":
            yield from self._list(depth)
        else:
            is_message = token.kind == "mark" and token.text in _CLOSING
            self._must(colon or is_message, "a field without : before its value", token)
            yield self._value(token, depth)

    def _list(self, depth: int) -> Iterator[str | Message]:
        while True:
            token = self._next()
            if token.kind == "mark" and token.text == "]":
                return
            if token.kind == "mark" and token.text == ",":
                continue
            yield self._value(token, depth)

    def _value(self, token: _Token, depth: int) -> str | Message:
        if token.kind == "mark" and token.text in _CLOSING:
            return self.message(_CLOSING[token.text], depth + 1)
        self._must(
            token.kind in ("word", "quoted"), f"expected a value, found {token.text!r}", token
        )
        if token.kind == "word":
            return "".join(token.text.split())
        texts = [_unquoted(token.text)]
        while self._tokens[self._at].kind == "quoted":  # adjacent texts are one
            texts.append(_unquoted(self._next().text))
        return "".join(texts)

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        if token.kind != "end":
            self._at += 1
        return token

    def _must(self, holds: bool, complaint: str, token: _Token) -> None:
        if not holds:
            what = "it ends too early" if token.kind == "end" else complaint
            raise TextprotoError(f"line {token.line}: {what}")

    def _error(self, complaint: str) -> TextprotoError:
        return TextprotoError(f"line {self._tokens[self._at].line}: {complaint}")


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while True:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            rest = text[at:].lstrip()
            line += text.count("\n", at, len(text) - len(rest))
            raise TextprotoError(f"line {line}: {rest[:20]!r} is not protobuf's text format")
        start = match.start(match.lastgroup)
        line += text.count("\n", at, start)
        yield _Token(match.lastgroup, match[match.lastgroup], line)
        if match.lastgroup == "end":
            return
        at = match.end()


def _unquoted(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        octal, hexadecimal, code, other = match.groups()
        if octal:
            return chr(int(octal, 8))
        if hexadecimal or code:
            return chr(int(hexadecimal or code, 16))
        return _SIMPLE.get(other, other)

    return _ESCAPE.sub(plain, text[1:-1])
