"""Answers with the request as it arrived. `/status/418` sets the status."""

import http.server
import json
import os
import re
import signal
import socketserver


class Mirror(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
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

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
# Not an HTTPServer: that asks the DNS for its own name, which can take seconds of a cold start.
socketserver.ThreadingTCPServer(("", int(os.environ["PORT"])), Mirror).serve_forever()
