"""The clusters of tests/web for tests of real processes."""

from tests.web.conftest import cluster

__all__ = ["cluster"]
