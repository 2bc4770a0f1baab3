"""A ZooKeeper client with something to hide: `PORT tls|open`. It has a session that says nothing, and says `there`.

The first line on its standard input is the secret. In another session it goes out in credentials, in a node's name
and in data of many sizes, and comes back. Then it says `told` and keeps its sessions until its standard input says so.
"""

import sys
import threading

from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

port, how = int(sys.argv[1]), sys.argv[2]


def session():
    client = KazooClient(
        hosts=f"127.0.0.1:{port}", timeout=6.0, use_ssl=how == "tls", verify_certs=False
    )
    client.start(timeout=30)
    return client


silent = session()
print("there", flush=True)
secret = sys.stdin.readline().strip()
client = session()
client.add_auth("digest", f"user:{secret}")
path = f"/{secret}-{how}"
client.create(path, secret.encode(), acl=[make_digest_acl("user", secret, all=True)])
for size in [1, 2, 3, 10, 100, 1_000, 10_000]:
    client.set(path, (secret * size).encode())
    client.get(path)
print("told", flush=True)
sys.stdin.readline()
client.stop()
print("closed", flush=True)
threading.Event().wait()
