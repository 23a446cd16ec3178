"""Adapters for `step.ai.infer`: how model providers are called, with their key, headers and
format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class AIAdapter(Protocol):
    """The way to a model provider. The adapters of `inngest.experimental.ai` fit."""

    def auth_key(self) -> str:
        """Return the API key, which the server adds in the provider's way."""
        ...

    def format(self) -> str:
        """Return the shape of request and answer: `openai-chat`, `anthropic`, `gemini`, ..."""
        ...

    def headers(self) -> dict[str, str]:
        """Return further headers of the request."""
        ...

    def on_call(self, body: dict[str, Any]) -> None:
        """Complete the request, for example with the model's name.

        Args:
            body: the request, as plain JSON; to be changed in place.
        """
        ...

    def url_infer(self) -> str:
        """Return the address of the call."""
        ...


class ModelAdapter:
    """The way to any provider that speaks a format known to the server.

    Args:
        url: the whole address of the call, such as `https://api.openai.com/v1/chat/completions`.
        auth_key: the provider's API key.
        format: shape of request and answer: `openai-chat`, `openai-responses`, `anthropic`,
            `gemini`.
        model: put into the request where it names none.
        headers: further headers of the request.
    """

    def __init__(
        self,
        *,
        url: str,
        auth_key: str = "",
        format: str = "openai-chat",
        model: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._url = url
        self._auth_key = auth_key
        self._format = format
        self._model = model
        self._headers = dict(headers or {})

    def __repr__(self) -> str:
        return f"<ModelAdapter {self._format} {self._url}>"

    def auth_key(self) -> str:
        """Return the API key."""
        return self._auth_key

    def format(self) -> str:
        """Return the shape of request and answer."""
        return self._format

    def headers(self) -> dict[str, str]:
        """Return further headers of the request."""
        return dict(self._headers)

    def on_call(self, body: dict[str, Any]) -> None:
        """Name the model, where the request does not.

        Args:
            body: the request, as plain JSON; changed in place.
        """
        if self._model is not None:
            body.setdefault("model", self._model)

    def url_infer(self) -> str:
        """Return the address of the call."""
        return self._url
