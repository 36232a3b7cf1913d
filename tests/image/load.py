"""Callers of the service, run by the image's own Python inside the network of the container that they call.

    python3 - CALLERS PAUSE SECONDS < this file, with the request's body in the variable BODY

Every second caller keeps its connection open. Ends when the service refuses connections, or after SECONDS, and prints
as JSON how many requests were answered with 200, and what happened to each other one.
"""

import http.client
import json
import os
import sys
import threading
import time

CALLERS, PAUSE, SECONDS = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
END = time.monotonic() + SECONDS
HEADERS = {"Content-Type": "application/json"}
answered = [0] * CALLERS
refused: list[int] = []
lost: list[str] = []


def call(number: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", 5000, timeout=60)
    is_open = False
    while time.monotonic() < END:
        try:
            if not is_open:
                connection.connect()
        except ConnectionRefusedError:
            refused.append(number)
            return
        try:
            connection.request("POST", "/predict", os.environ["BODY"], HEADERS)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            lost.append(repr(error))
            connection.close()
            is_open = False
            continue
        if response.status == 200:
            answered[number] += 1
        else:
            lost.append(f"{response.status} {text[:200]!r}")
        is_open = number % 2 == 0 and response.headers.get("Connection") != "close"
        if not is_open:
            connection.close()
        time.sleep(PAUSE)


callers = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
print(json.dumps({"answered": sum(answered), "refused": len(refused), "lost": lost}))
