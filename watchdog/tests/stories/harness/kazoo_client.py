"""A ZooKeeper session held by kazoo: `kazoo_client.py HOSTS TIMEOUT_SECONDS idle|busy`.

Out: `@ MONO_US STATE ID TIMEOUT_MS` a line; in: `close` ends the session in order.
"""
import sys
import threading
import time

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.protocol.states import KazooState

hosts, timeout, load = sys.argv[1], float(sys.argv[2]), sys.argv[3]
client = KazooClient(hosts=hosts, timeout=timeout, connection_retry={"max_tries": -1, "max_delay": 0.5})


def say(state):
    number = (client.client_id[0] if client.client_id else 0) & 0xFFFFFFFFFFFFFFFF
    print("@", time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000, state, f"{number:#x}", flush=True)


def changed(state):
    say({KazooState.CONNECTED: "connected", KazooState.SUSPENDED: "disconnected", KazooState.LOST: "expired"}[state])


client.add_listener(changed)
client.start(timeout=30)


def read_in_a_loop():
    while True:
        try:
            client.get("/")
        except (KazooException, client.handler.timeout_exception):
            pass
        time.sleep(0.02)


if load == "busy":
    threading.Thread(target=read_in_a_loop, daemon=True).start()
for line in sys.stdin:
    if line.strip() == "close":
        break
client.remove_listener(changed)
client.stop()
say("closed")
