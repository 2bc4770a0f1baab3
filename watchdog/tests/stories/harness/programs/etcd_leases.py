"""Several leases of etcd kept alive over one connection, as etcd's own client library does: `PORT ID…`.

One LeaseKeepAlive stream for all of them, a request each every 2 s. On standard input `drop ID` stops keeping
that one alive. gRPC over HTTP/2 by hand, as far as this needs it.
"""

import os
import socket
import struct
import sys
import threading
import time


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name, value):
    return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def varint(value):
    taken = b""
    while value >= 0x80:
        taken += bytes([value & 0x7F | 0x80])
        value >>= 7
    return taken + bytes([value])


def take(stream, count):
    taken = b""
    while len(taken) < count:
        part = stream.recv(count - len(taken))
        if not part:
            os._exit(1)
        taken += part
    return taken


def listen(stream):
    while True:
        head = take(stream, 9)
        payload = take(stream, int.from_bytes(head[:3], "big"))
        kind, flags = head[3], head[4]
        if kind == 4 and not flags & 1:
            stream.sendall(frame(4, 1, 0, b""))
        elif kind == 6 and not flags & 1:
            stream.sendall(frame(6, 1, 0, payload))
        elif kind == 0 and payload:
            print("answered", flush=True)
            update = struct.pack(">I", len(payload))
            stream.sendall(frame(8, 0, 0, update) + frame(8, 0, 1, update))


def told(leases):
    for line in sys.stdin:
        leases.discard(int(line.split()[1], 16))
        print("dropped", flush=True)


port = int(sys.argv[1])
leases = {int(word, 16) for word in sys.argv[2:]}
connection = socket.create_connection(("127.0.0.1", port))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
headers = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/etcdserverpb.Lease/LeaseKeepAlive"),
    (":authority", f"127.0.0.1:{port}"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
block = b"".join(header(name, value) for name, value in headers)
connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, block))
threading.Thread(target=listen, args=(connection,), daemon=True).start()
threading.Thread(target=told, args=(leases,), daemon=True).start()
while True:
    for lease in sorted(leases):
        body = b"\x08" + varint(lease)
        connection.sendall(frame(0, 0, 1, b"\0" + struct.pack(">I", len(body)) + body))
    time.sleep(2)
