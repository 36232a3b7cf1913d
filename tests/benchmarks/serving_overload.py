"""Requests at a given rate, whether earlier ones were answered or not, as many callers who don't know each other."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

PATIENCE = 30
"""Seconds that a caller waits for an answer."""
MOST = 4000
"""Connections, at most; a request that would need another is counted as not offered."""


@dataclass(slots=True)
class Found:
    """What became of the requests."""

    offered: int = 0
    seconds: float = 0.0
    """Until the last answer."""
    milliseconds: list[float] = field(default_factory=list)
    """Of the requests that were answered with 200."""
    others: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        return len(self.milliseconds)

    def percentile(self, share: float) -> float:
        """Milliseconds that this per cent of the answers took at most."""
        return sorted(self.milliseconds)[int(len(self.milliseconds) * share / 100)] if self.milliseconds else 0.0


async def offer(port: int, body: bytes, rate: float, seconds: float) -> Found:
    """`rate` requests a second to /predict, for this time; each on a connection that waits, or on a new connection."""
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    found, free, running = Found(), list[tuple[asyncio.StreamReader, asyncio.StreamWriter]](), set[asyncio.Task[None]]()

    async def call() -> None:
        begun = time.perf_counter()
        try:
            reader, writer = free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            status, headers = answer.split(b" ", 2)[1].decode(), answer.lower()
            length = int(headers.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            found.others[type(error).__name__] += 1
            return
        if status == "200":
            found.milliseconds.append((time.perf_counter() - begun) * 1000)
        else:
            found.others[status] += 1
        if b"connection: close" in headers:
            writer.close()
        else:
            free.append((reader, writer))

    begun = time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        # A wait of a millisecond is the load itself: so many requests are due at each.
        for _ in range(int(passed * rate) - found.offered - found.others["not offered"]):
            if len(running) >= MOST:
                found.others["not offered"] += 1
                continue
            found.offered += 1
            running.add(task := asyncio.ensure_future(call()))
            task.add_done_callback(running.discard)
        await asyncio.sleep(0.001)
    await asyncio.gather(*running)
    found.seconds = time.perf_counter() - begun
    for _, writer in free:
        writer.close()
    return found
