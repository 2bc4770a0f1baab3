"""A keepalive of no protocol in particular, and who grants it.

`serve` answers whatever comes. `serve-strictly T` hangs up on whom it has not heard for T seconds, and
looks for those before it reads what has come meanwhile. `serve-polls LEAST MOST` holds each answer back for
as long as it likes between the two.

`hold PORT PERIOD` asks, waits for the answer, sleeps. `poll PORT` asks again at once. `visit PORT PERIOD` has
a connection for each request. All close their connection when their standard input says so, and live on.
`flood PORT` asks without a pause and says only that it has begun.
`crowd PORT COUNT` has so many connections, asks on each once a second.

Before any of these, `tls CERTIFICATE KEY` has it all inside TLS.

Each says what it does on standard output.
"""

import random
import select
import socket
import ssl
import sys
import threading
import time


def say(text):
    print(text, flush=True)


def listen():
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    say(f"port {listener.getsockname()[1]}")
    return listener


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port))
    if not sealed:
        return connection
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def answer(connection, hold):
    try:
        if sealed:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*sealed)
            connection = context.wrap_socket(connection, server_side=True)
        while connection.recv(4096):
            time.sleep(hold())
            connection.sendall(b"\x00\x07granted")
    except OSError:
        pass
    connection.close()


def serve(hold=lambda: 0):
    listener = listen()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, hold), daemon=True).start()


def serve_strictly(timeout):
    listener = listen()
    heard = {}
    while True:
        ready = select.select([listener, *heard], [], [], 0.2)[0]
        now = time.monotonic()
        for connection in [one for one, at in heard.items() if now - at > timeout]:
            del heard[connection]
            connection.close()
            say("expired")
        for one in ready:
            if one is listener:
                connection, _ = listener.accept()
                heard[connection] = now
            elif one in heard:
                if one.recv(4096):
                    heard[one] = now
                    one.sendall(b"\x00\x07granted")
                else:
                    del heard[one]
                    one.close()


def told(period):
    return select.select([sys.stdin], [], [], period)[0]


def ask(connection):
    connection.sendall(b"\x00\x05renew")
    if not connection.recv(4096):
        raise ConnectionError("it hung up")
    say("renewed")


def rest():
    say("closed")
    sys.stdin.read()
    threading.Event().wait()


def hold(port, period):
    with connect(port) as connection:
        while True:
            try:
                ask(connection)
            except OSError:
                say("lost")
                break
            if told(period):
                break
    rest()


def visit(port, period):
    while True:
        with connect(port) as connection:
            ask(connection)
        if told(period):
            break
    rest()


def flood(port):
    with connect(port) as connection:
        say("there")
        while True:
            connection.sendall(b"\x00\x05renew")
            connection.recv(4096)


def crowd(port, count):
    connections = [connect(port) for _ in range(count)]
    say("there")
    while not told(1):
        for connection in connections:
            connection.sendall(b"\x00\x05renew")
            connection.recv(4096)
    for connection in connections:
        connection.close()
    rest()


words = sys.argv[1:]
sealed = []
if words[0] == "tls":
    sealed, words = words[1:3], words[3:]
verb, numbers = words[0], [float(word) for word in words[1:]]
if verb == "serve":
    serve()
elif verb == "serve-strictly":
    serve_strictly(numbers[0])
elif verb == "serve-polls":
    serve(lambda: random.uniform(*numbers))
elif verb == "poll":
    hold(int(numbers[0]), 0)
elif verb == "flood":
    flood(int(numbers[0]))
elif verb == "crowd":
    crowd(int(numbers[0]), int(numbers[1]))
else:
    {"hold": hold, "visit": visit}[verb](int(numbers[0]), numbers[1])
