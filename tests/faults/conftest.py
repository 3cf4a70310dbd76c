"""Fault tests: real processes that are hurt. The fixtures are those of the cluster's own tests."""

from tests.cluster.conftest import limited, local, module, serve, spec, stranger, until

__all__ = ["limited", "local", "module", "serve", "spec", "stranger", "until"]
