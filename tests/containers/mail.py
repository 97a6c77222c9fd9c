"""A mail server that keeps what it receives."""

from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from queue import SimpleQueue
from socketserver import StreamRequestHandler, TCPServer
from threading import Thread


class MailServer(TCPServer):
    """Speaks as much SMTP (RFC 5321) as a delivery without login or TLS needs."""

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), _Session)
        self.messages: SimpleQueue[EmailMessage] = SimpleQueue()
        """The messages received, each with the recipients of its envelope in `X-Envelope-To`."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Session(StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        recipients = []
        self._respond("220 ready")
        for line in self.rfile:
            command = line.decode().strip()
            match command[:4].upper():
                case "EHLO" | "HELO" | "MAIL":
                    self._respond("250 OK")
                case "RCPT":
                    recipients.append(command.partition("<")[2].partition(">")[0])
                    self._respond("250 OK")
                case "DATA":
                    self._respond("354 end with a line that is a dot")
                    self._receive(recipients)
                    self._respond("250 OK")
                case "QUIT":
                    self._respond("221 closing")
                    return
                case _:
                    self._respond("502 not implemented")

    def _receive(self, recipients: list[str]) -> None:
        lines = iter(self.rfile.readline, b".\r\n")
        content = b"".join(line.removeprefix(b".") for line in lines)
        message = message_from_bytes(content, policy=policy.default)
        message["X-Envelope-To"] = ", ".join(recipients)
        self.server.messages.put(message)

    def _respond(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def mail_server(host: str) -> Iterator[MailServer]:
    """A mail server on a free port of this address."""
    with MailServer(host) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
