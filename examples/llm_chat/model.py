"""A stand-in for a language model, with the streaming API of OpenAI: `python -m
examples.llm_chat.model` serves it at port 8001. It says the question back, slowly."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Model(BaseHTTPRequestHandler):
    """Answers `POST /v1/chat/completions`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Send the words of the answer, one by one."""
        length = int(self.headers["content-length"])
        question = json.loads(self.rfile.read(length))["messages"][-1]["content"]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for number, word in enumerate(f"You asked: {question}".split()):
            self.pause(number)
            text = word if number == 0 else f" {word}"
            self._event(json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}))
        self._event("[DONE]")
        self.close_connection = True

    def pause(self, number: int) -> None:
        """Think about a word."""
        time.sleep(0.2)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8001), Model).serve_forever()
