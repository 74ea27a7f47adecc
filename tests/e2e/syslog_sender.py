"""Sends syslog with what Python has: logging.handlers.SysLogHandler, over UDP, TCP and TLS.

Arguments: the way (udp, tcp, tls), the port, how many messages, and for tls the files of the authority, of the
client's certificate and of its key.
"""

import logging
import logging.handlers
import socket
import ssl
import sys
import time


class Handler(logging.handlers.SysLogHandler):
    """One message per line over connections."""

    def __init__(self, way, port, files):
        self.way = way
        self.files = files
        kind = socket.SOCK_DGRAM if way == "udp" else socket.SOCK_STREAM
        super().__init__(("127.0.0.1", port), socktype=kind, facility="local0")
        self.secure()
        self.append_nul = way == "udp"
        self.formatter = logging.Formatter("%(asctime)s python app: %(message)s", "%b %e %H:%M:%S")
        self.formatter.converter = time.gmtime

    def createSocket(self):
        super().createSocket()
        self.secure()

    def secure(self):
        if self.way == "tls" and not isinstance(self.socket, ssl.SSLSocket):
            ca, cert, key = self.files
            context = ssl.create_default_context(cafile=ca)
            context.load_cert_chain(cert, key)
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def format(self, record):
        text = super().format(record)
        return text if self.way == "udp" else text + "\n"

    def handleError(self, record):
        raise


def main():
    way, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    handler = Handler(way, port, sys.argv[4:])
    log = logging.getLogger("test")
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)
    for n in range(count):
        log.warning("%s-%d", way, n)
    if way == "tls":
        handler.socket = handler.socket.unwrap()
    handler.close()


main()
