"""Fault tests: real processes that are hurt. The fixtures are those of the cluster's own tests."""

from tests.cluster.conftest import limited, module, serve, spec, until

__all__ = ["limited", "module", "serve", "spec", "until"]
