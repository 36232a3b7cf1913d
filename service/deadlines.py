"""A time limit that many connections share."""

from time import monotonic
from typing import Protocol


class Expiring(Protocol):
    """What can wait."""

    def expire(self) -> None:
        """The time is over."""


class Deadlines:
    """Connections that wait for the same kind of event, each for `seconds` at most.

    All wait equally long, so the order in which they began is the order in which they end, and a dict keeps it:
    starting and stopping cost far less than a timer.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since: dict[Expiring, float] = {}

    def start(self, connection: Expiring) -> None:
        """Begin to wait."""
        self._since[connection] = monotonic()

    def stop(self, connection: Expiring) -> None:
        """What the connection waited for has happened."""
        self._since.pop(connection, None)

    def expire(self) -> None:
        """End the connections that have waited too long."""
        limit = monotonic() - self.seconds
        expired = []
        for connection, since in self._since.items():
            if since > limit:
                break
            expired.append(connection)
        for connection in expired:
            connection.expire()
            self.stop(connection)

    def expire_first(self) -> bool:
        """End the connection that has waited longest; False if none waits."""
        connection = next(iter(self._since), None)
        if connection is None:
            return False
        connection.expire()
        self.stop(connection)
        return True

    def __contains__(self, connection: Expiring) -> bool:
        return connection in self._since
