"""What a plugin of Pulumi's engine needs beside its protocol, whatever it provides."""

import os
import threading
import time


def end_with_engine() -> None:
    """End this process when the engine, its parent, has ended: a killed engine can't end its plugins itself."""
    engine = os.getppid()

    def watch() -> None:
        while os.getppid() == engine:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
