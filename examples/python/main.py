"""A function in Python, with nothing but the standard library. It listens on $PORT, keeps
connections open between requests, and on SIGTERM finishes what runs and then ends."""

import http.server
import os
import signal
import socket
import socketserver
import threading


class Running:
    """Counts the requests that run."""

    def __init__(self):
        self.count, self.changed = 0, threading.Condition()

    def __enter__(self):
        with self.changed:
            self.count += 1

    def __exit__(self, *_):
        with self.changed:
            self.count -= 1
            self.changed.notify_all()

    def wait_for_end(self):
        with self.changed:
            self.changed.wait_for(lambda: self.count == 0)


running = Running()


class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive
    disable_nagle_algorithm = True  # else a body waits 40 ms for the acknowledgement of its headers

    def do_GET(self):
        with running:
            body = f"Hello from Python on {socket.gethostname()}\n".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def server_bind(self):
        # The one of HTTPServer asks the DNS for our own name, which can take seconds of a cold start.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


server = Server(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Hello)
# In a thread: shutdown() waits for the loop that the signal has interrupted.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print(f"python: listening on port {server.server_port}", flush=True)
server.serve_forever(poll_interval=0.05)
server.server_close()
running.wait_for_end()
