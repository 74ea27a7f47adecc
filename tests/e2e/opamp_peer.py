"""A server of OpAMP over HTTP, made of the messages that the package opentelemetry-opamp-client has, which
were generated from the specification. It prints a line of JSON for each message, and offers what stdin says.

Usage: opamp_peer.py PORT; a line of stdin is JSON: {"hash": TEXT, "files": {NAME: TEXT}}.
"""

import gzip
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from google.protobuf import json_format
from opentelemetry._opamp.proto import opamp_pb2

offer = None


def unknown(message):
    """Whether there are fields that the specification does not have, at any depth."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    if len(UnknownFieldSet(message)):
        return True
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            values = value.values() if inner.type == inner.TYPE_MESSAGE else []
        else:
            # Repeated ones can be gone through, others are one.
            values = [value] if hasattr(value, "ListFields") else value
        if any(unknown(v) for v in values):
            return True
    return False


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        message = opamp_pb2.AgentToServer()
        message.ParseFromString(body)
        said = json_format.MessageToDict(message, preserving_proto_field_name=True)
        print(json.dumps({"message": said, "unknown": unknown(message)}), flush=True)
        answer = opamp_pb2.ServerToAgent()
        answer.instance_uid = message.instance_uid
        answer.capabilities = 7
        known = message.remote_config_status.last_remote_config_hash
        if message.HasField("remote_config_status"):
            Server.known = known
        if offer and getattr(Server, "known", b"") != offer["hash"].encode():
            for name, text in offer["files"].items():
                answer.remote_config.config.config_map[name].body = text.encode()
            answer.remote_config.config_hash = offer["hash"].encode()
        out = answer.SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)

    def log_message(self, *_):
        pass


def listen():
    global offer
    for line in sys.stdin:
        offer = json.loads(line)


threading.Thread(target=listen, daemon=True).start()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
