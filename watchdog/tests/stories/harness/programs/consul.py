"""Consul's sessions over HTTP/1.1: `serve`, or `hold PORT PERIOD`, which keeps one connection, or `curl PORT
PERIOD`, which runs curl for each renewal. Both end their session when their standard input says so.
"""

import http.client
import http.server
import json
import select
import subprocess
import sys
import threading

ID = "adf4238a-882b-9ddc-4a9d-5b6758e4159e"


def say(text):
    print(text, flush=True)


class Agent(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps([{"ID": ID, "TTL": "6s"}]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    say(f"port {server.server_address[1]}")
    server.serve_forever()


def renewals(put, period):
    while True:
        put(f"/v1/session/renew/{ID}")
        say("renewed")
        if select.select([sys.stdin], [], [], period)[0]:
            break
    put(f"/v1/session/destroy/{ID}")
    say("closed")
    threading.Event().wait()


def hold(port, period):
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def put(path):
        connection.request("PUT", path)
        connection.getresponse().read()

    renewals(put, period)


def curl(port, period):
    def put(path):
        command = ["curl", "-s", "-X", "PUT", f"http://127.0.0.1:{port}{path}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    renewals(put, period)


if sys.argv[1] == "serve":
    serve()
else:
    {"hold": hold, "curl": curl}[sys.argv[1]](int(sys.argv[2]), float(sys.argv[3]))
