"""TCP: `Connection` is one side of one connection, without I/O."""

from bootwire.engine.tcp.connection import Config, Connection, Failure, State

__all__ = ["Config", "Connection", "Failure", "State"]
