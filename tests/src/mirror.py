"""Answers with the request as it arrived. `/status/418` sets the status; who asks for another
protocol gets one in which each line comes back."""

import http.server
import json
import os
import re
import signal
import socketserver


class Mirror(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        if "upgrade" in self.headers:
            return self.repeat_lines()
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        method, path, version = self.requestline.split(" ")
        seen = {"method": method, "path": path, "headers": self.headers.items(), "bytes": len(body)}
        text = json.dumps(seen).encode()
        wanted = re.match("/status/([0-9]+)", path)
        status = int(wanted[1]) if wanted else 200
        self.send_response(status)
        if status not in (204, 304):
            self.send_header("content-length", str(len(text)))
        self.end_headers()
        if status not in (204, 304) and method != "HEAD":
            self.wfile.write(text)

    def repeat_lines(self):
        self.send_response(101)
        self.send_header("connection", "upgrade")
        self.send_header("upgrade", self.headers["upgrade"])
        self.end_headers()
        self.close_connection = True
        for line in self.rfile:
            self.wfile.write(line)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
# Not an HTTPServer: that asks the DNS for its own name, which can take seconds of a cold start.
socketserver.ThreadingTCPServer(("", int(os.environ["PORT"])), Mirror).serve_forever()
