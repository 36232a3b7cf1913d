"""How long a look-up in DynamoDB takes: `PYTHONPATH=. python tests/benchmarks/feature_store.py [MILLISECONDS]`.

A server on the loopback address answers as DynamoDB does, after 5 milliseconds, with a row for each item. Cold: an
aircraft that was never asked for; warm: the same again. Printed: p50 and p99 in milliseconds, and how many weren't in
time.
"""

import json
import multiprocessing
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(wait)  # the round trip that is measured
            answer: Any = {"Item": {"watermark": {"N": str(NOW)}, "revision": {"N": "1"}}}
            if "RequestItems" in request:
                keys = request["RequestItems"]["features"]["Keys"]
                answer = {"Responses": {"features": [key | {"rows": {"S": rows(key)}} for key in keys]}}
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        pipe.send(server.server_port)
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
