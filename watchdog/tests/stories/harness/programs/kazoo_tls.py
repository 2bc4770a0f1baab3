"""A ZooKeeper session held by kazoo over TLS: `PORT TIMEOUT idle|busy`.

With `again` instead of `close` it makes another session beside the first.
It says its session's id and the TLS version once it is connected, and ends the session in order when its
standard input says so.
"""

import sys
import threading
import time

from kazoo.client import KazooClient

port, timeout, load = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]


def session():
    client = KazooClient(
        hosts=f"127.0.0.1:{port}",
        timeout=timeout,
        use_ssl=True,
        verify_certs=False,
        connection_retry={"max_tries": -1, "max_delay": 0.5},
    )
    client.start(timeout=30)
    version = client._connection._socket.version()
    print(f"session {client.client_id[0] & 0xFFFFFFFFFFFFFFFF:#x} {version}", flush=True)
    return client


client = session()


def read_in_a_loop():
    while client.connected:
        client.get("/")
        time.sleep(0.02)


if load == "busy":
    threading.Thread(target=read_in_a_loop, daemon=True).start()
while sys.stdin.readline().strip() == "again":
    first, client = client, session()
client.stop()
print("closed", flush=True)
threading.Event().wait()
