"""A keepalive of no protocol in particular: `serve`, or `hold PORT PERIOD`.

The server answers whatever comes. The client asks, waits for the answer, sleeps; it closes its
connection when its standard input ends. Each says what it does on standard output.
"""

import select
import socket
import sys
import threading


def say(text):
    print(text, flush=True)


def answer(connection):
    while connection.recv(4096):
        connection.sendall(b"\x00\x07granted")
    connection.close()


def serve():
    listener = socket.create_server(("127.0.0.1", 0))
    say(f"port {listener.getsockname()[1]}")
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def hold(port, period):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while True:
            connection.sendall(b"\x00\x05renew")
            connection.recv(4096)
            say("renewed")
            if select.select([sys.stdin], [], [], period)[0]:
                break
    say("closed")
    sys.stdin.read()
    threading.Event().wait()


if sys.argv[1] == "serve":
    serve()
else:
    hold(int(sys.argv[2]), float(sys.argv[3]))
