"""A running server, as the tests of the server have it."""

from ..serving.conftest import model, server

__all__ = ["model", "server"]
