"""How long a look-up in DynamoDB takes: `PYTHONPATH=. python tests/benchmarks/feature_store.py [MILLISECONDS]`.

A server on the loopback address answers as DynamoDB does, after 5 milliseconds, with a row for each item. Cold: an
aircraft that was never asked for; warm: the same again. Printed: p50 and p99 in milliseconds, and how many weren't in
time.
"""

import json
import multiprocessing
import os
import socketserver
import sys
import time
from typing import Any

import numpy as np

from ml.features import flight_views
from ml.features.stores import open_store
from ml.features.views import HOUR
from service.lookup import Lookup

VIEWS = flight_views.views(2 * HOUR)
VALUES = {view.name: [1.0] * len(view.values) for view in VIEWS.views}
NOW = 1_383_566_400_000_000
FLIGHTS = 300


def serve(wait: float, pipe: Any) -> None:
    """Answer until the process ends."""

    class Handler(socketserver.StreamRequestHandler):
        """As little HTTP as the SDK needs: http.server takes a millisecond to read a request's head."""

        disable_nagle_algorithm = True

        def handle(self) -> None:
            while self.rfile.readline():
                length = 0
                while (line := self.rfile.readline().lower()) != b"\r\n":
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                request = json.loads(self.rfile.read(length))
                time.sleep(wait)  # the round trip that is measured
                answer: Any = {"Item": {"watermark": {"N": str(NOW)}, "revision": {"N": "1"}}}
                if "RequestItems" in request:
                    keys = request["RequestItems"]["features"]["Keys"]
                    answer = {"Responses": {"features": [key | {"rows": {"S": rows(key)}} for key in keys]}}
                body = json.dumps(answer).encode()
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        pipe.send(server.server_address[1])
        server.serve_forever()


def rows(key: Any) -> str:
    """A row at the beginning of the bucket."""
    view = key["entity"]["S"].split("/")[1]
    ttl = next(each.ttl for each in VIEWS.views if each.name == view)
    return json.dumps([[int(key["bucket"]["N"]) * (ttl or 0), VALUES[view]]])


def main() -> None:
    wait = float(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0.005
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(wait, theirs), daemon=True)
    server.start()
    os.environ |= {
        "AWS_ENDPOINT_URL_DYNAMODB": f"http://127.0.0.1:{ours.recv()}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    store = open_store("dynamodb://features?region=us-east-1", VIEWS)
    names = [name for view in VIEWS.views for name in view.features]
    lookup = Lookup(VIEWS, names, store, deadline=0.007, real=lambda: NOW)
    flight = {"scheduled_departure": "2013-11-04T09:00", "carrier": "UA", "origin": "EWR", "dest": "SFO"}
    lookup.find(flight)
    for name in ("cold", "warm"):
        took, late = [], 0
        for number in range(FLIGHTS):
            begun = time.perf_counter()
            found = lookup.find(flight | {"tailnum": f"N{number}"})
            took.append((time.perf_counter() - begun) * 1000)
            late += found.trouble is not None
        p50, p99 = np.percentile(took, [50, 99])
        print(f"{name}: p50 {p50:.3f} ms, p99 {p99:.3f} ms, {late} of {FLIGHTS} not in time")
    lookup.memory.close()
    server.terminate()


if __name__ == "__main__":
    main()
