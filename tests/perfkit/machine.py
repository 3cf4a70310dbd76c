"""This machine's fingerprint, taken once for the tests that need any one: it takes 0.1 s."""

from perfkit.evidence.environment import fingerprint

HERE = fingerprint()
