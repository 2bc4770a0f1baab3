"""A consumer of kafka-python: `PORT`. Its session lasts 6 s, a heartbeat comes every 2 s; it leaves its
group when its standard input says so.
"""

import select
import sys
import threading

import kafka

consumer = kafka.KafkaConsumer(
    "topic",
    bootstrap_servers=f"127.0.0.1:{sys.argv[1]}",
    group_id="kafka-python",
    client_id="story",
    session_timeout_ms=6_000,
    heartbeat_interval_ms=2_000,
    api_version=(0, 11),
)
print("started", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    consumer.poll(timeout_ms=200)
consumer.close()
print("closed", flush=True)
threading.Event().wait()
