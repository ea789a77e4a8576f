"""Models behind an OpenAI-compatible server (vLLM, SGLang, llama.cpp, a hosted one): for judging, `sample` only.

The seam speaks in token ids, and the server's tokenizer is not here: ids are the bytes of the JSON of the messages one way, and of the
answer's text the other way.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from guerdon.backends.base import Completion, SamplingParams, Usage, backend
from guerdon.backends.scripted import completion, from_prompt, to_ids, to_messages, to_text
from guerdon.registry import Refused
from guerdon.samples import Prompt

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LONGEST = 300
"""Characters of a server's error that are repeated."""


VERBS = ("forward", "forward_backward", "optim_step", "grad_keep", "grad_add", "grad_dot", "save", "load", "copy")
"""What the seam has and a server does not."""


@dataclass
class Account:
    """What the requests of a model have cost so far."""

    requests: int = 0
    retries: int = 0
    failed: int = 0
    """Requests that came to nothing, all retries spent."""
    prompt: int = 0
    cached: int = 0
    """Of the prompt tokens those that the server had in a cache, as it says."""
    new: int = 0
    seconds: float = 0.0
    """Of all requests, waiting for their turn aside, added up."""
    cost: float = 0.0
    """At the prices given."""

    def __str__(self) -> str:
        tokens = f"{self.prompt:,} prompt and {self.new:,} new tokens"
        cost = f", cost {self.cost:.4f}" if self.cost else ""
        return f"{self.requests:,} requests ({self.retries:,} retries, {self.failed:,} failed), {tokens}, {self.seconds:.1f} s{cost}"


@backend(capabilities=frozenset(), only="sample")
def openai(
    path: str | None,
    url: str = "https://api.openai.com/v1",
    key_env: str = "OPENAI_API_KEY",
    concurrency: int = 16,
    timeout: float = 60.0,
    retries: int = 4,
    prompt_price: float = 0.0,
    new_price: float = 0.0,
    extra: Mapping[str, Any] | None = None,
    trainable: bool = False,
) -> Server:
    """The model `path` of the server at `url`; nothing is asked of it yet.

    key_env: the environment variable that holds the key; a server without keys needs none.  concurrency: requests in flight, over all calls
    and threads.  timeout: seconds for one try, to the last byte.  retries: further tries after a lost connection, a late answer, 408, 409,
    429 or 5xx, with growing pauses, or as long as the server's Retry-After asks (two minutes at most).  prompt_price, new_price: of a
    million tokens, for the account.  extra: further fields of each request (`{chat_template_kwargs: {enable_thinking: false}}`); null
    takes one out (`{max_tokens: null, max_completion_tokens: 4096}`).
    Raises Refused without the package openai, and for values that cannot be used.
    """
    if trainable:
        raise Refused("The backend openai cannot train; open a model that learns with the backend local.")
    return Server(path, url, key_env, concurrency, timeout, retries, (prompt_price, new_price), dict(extra or {}))


Answer = tuple[Completion, Usage]


class Server:
    """The handle: `encode`, `encode_answer`, `decode`, `show` and `sample`. A request that fails is a Completion that says why (`failed`),
    so that it costs no other. `account` is the `Account`."""

    capabilities: frozenset[str] = frozenset()
    version = 0

    def __init__(
        self, name: str | None, url: str, key_env: str, concurrency: int, timeout: float, retries: int, prices: tuple[float, float],
        extra: dict[str, Any],
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise Refused(f"The url of an openai model is such as http://127.0.0.1:8000/v1, not {url.rpartition('@')[2]!r}.")
        if "@" in parts.netloc or parts.query:
            raise Refused(f"The url of the openai model at {parts.hostname} holds a key; put it into the variable that key_env names.")
        if not name:
            raise Refused(f"The openai model at {url} has no name; write `path: MODEL`, or --model NAME={url}#MODEL.")
        if concurrency < 1 or timeout <= 0 or retries < 0:
            raise Refused(f"openai takes concurrency >= 1, timeout > 0 and retries >= 0, not {concurrency}, {timeout} and {retries}.")
        self.name, self.url, self.path, self.prices, self.extra = name, url, f"{url}#{name}", prices, extra
        self.key_env, self._key = key_env, os.environ.get(key_env, "")
        self.timeout, self.account = timeout, Account()
        self._client = _client(url, self._key, timeout, retries)
        self._turn = asyncio.Semaphore(concurrency)
        self._down = False  # after a request whose tries all came to nothing others are not tried again, until one is answered
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name=f"guerdon-openai {name}").start()

    def encode(self, prompt: Prompt) -> np.ndarray:
        return from_prompt(prompt)

    def encode_answer(self, text: str) -> np.ndarray:
        return to_ids(text)

    def decode(self, ids: np.ndarray) -> tuple[str, np.ndarray]:
        return to_text(ids)

    def show(self, ids: np.ndarray) -> str:
        return to_text(ids)[0]

    def sample(
        self, prefixes: Sequence[np.ndarray], n: int, params: SamplingParams, want: tuple[str, ...] = ()
    ) -> tuple[list[list[Completion]], Usage]:
        """n completions of each prefix, each a request of its own, in the order of the prefixes.

        The request's seed is params.seed plus the completion's number: it hangs on no other prefix. logprobs are NaN, or with want
        ("logprobs",) at temperature 0 or 1 the server's, a token's on its last byte, where it gives them and they spell the answer.
        Usage is as the server says. Raises Refused for prefixes that no `encode` made, stop texts, or another `want`.
        """
        if params.stop or any(name != "logprobs" for name in want):
            raise Refused("The backend openai takes no stop texts, and gives nothing but logprobs; use the backend local for these.")
        try:
            conversations = [to_messages(prefix) for prefix in prefixes]
        except ValueError:
            raise Refused(
                "The backend openai is given whole prompts, as its own `encode` made them; a begun answer cannot be sent."
            ) from None
        calls = [
            self._request(self._body(messages, params, i, vote, want)) for i, messages in enumerate(conversations) for vote in range(n)
        ]
        found = self._wait(calls)
        answers = [answer for answer, _ in found]
        return [answers[i * n : (i + 1) * n] for i in range(len(prefixes))], sum((used for _, used in found), Usage())

    def __getattr__(self, name: str) -> Any:
        if name in VERBS:
            raise Refused(f"The backend openai only samples: {name!r} needs the weights of the model; open it with the backend local.")
        raise AttributeError(name)

    def close(self) -> None:
        """Ends the connections and the thread; the model cannot be asked again."""
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _wait(self, calls: Sequence[Coroutine[Any, Any, Answer]]) -> list[Answer]:
        async def every() -> list[Answer]:
            return list(await asyncio.gather(*calls))

        running = asyncio.run_coroutine_threadsafe(every(), self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def _body(self, messages: Any, params: SamplingParams, prefix: int, vote: int, want: tuple[str, ...]) -> dict[str, Any]:
        body = {
            "model": self.name, "messages": messages, "max_tokens": params.limit(prefix), "temperature": params.temperature,
            "seed": (params.seed + vote) % 2**31,
        }  # fmt: skip
        if params.top_p < 1:
            body["top_p"] = params.top_p
        if params.top_k > 0:
            body["top_k"] = params.top_k
        if want and params.temperature in (0.0, 1.0):
            body["logprobs"] = True
        return {name: value for name, value in {**body, **self.extra}.items() if value is not None}

    async def _request(self, body: dict[str, Any]) -> Answer:
        """One answer, however it went: a request that fails is one too."""
        from openai import APIConnectionError, OpenAIError

        async with self._turn:
            began, account = time.perf_counter(), self.account
            account.requests += 1
            client = self._client.with_options(max_retries=0) if self._down else self._client
            try:
                reply = await client.post("/chat/completions", body=body, cast_to=_reply())
                request, answer = reply.request, read(reply.content, bool(body.get("logprobs")))
                self._down = False
            except (OpenAIError, ValueError) as error:
                request, answer = getattr(error, "request", None), (completion("", "error", failed=self._why(error)), Usage())
                self._down = isinstance(error, APIConnectionError)
            account.retries += _retries(request)
            account.seconds += time.perf_counter() - began
            found, used = answer
            if found.failed:
                found.failed = self._safe(f"{self.url}: {found.failed}")
                account.failed += 1
            account.prompt, account.cached, account.new = account.prompt + used.prompt, account.cached + used.cached, account.new + used.new
            account.cost += (used.prompt * self.prices[0] + used.new * self.prices[1]) / 1e6
            return found, used

    def _why(self, error: Any) -> str:
        tries = _retries(getattr(error, "request", None)) + 1
        after = f" after {tries} tries" if tries > 1 else ""
        status = getattr(error, "status_code", None)
        if status is not None:
            key = f"; the environment variable {self.key_env} holds no key" if status == 401 and not self._key else ""
            return f"status {status}{after}{key}: {error.response.text[:LONGEST]}"
        cause = error.__cause__
        if isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
            return f"no answer within {self.timeout:g} s{after}"
        return f"no connection{after}: {str(cause)[:LONGEST]}" if cause else f"{type(error).__name__}: {str(error)[:LONGEST]}"

    def _safe(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def read(content: bytes, logprobs: bool = False) -> Answer:
    """What a server's reply says: the first choice's text, why it ended, and the usage. Anything but a whole answer is failed."""
    try:
        reply = json.loads(content)
        choice = reply["choices"][0]
        text, ended = choice["message"].get("content"), choice.get("finish_reason")
        usage = reply.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        used = Usage(*(int(x or 0) for x in (usage.get("prompt_tokens"), details.get("cached_tokens"), usage.get("completion_tokens"))))
        if not isinstance(text, (str, type(None))):
            raise TypeError
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return completion("", "error", failed=f"the reply is no chat completion: {content[:LONGEST].decode('utf-8', 'replace')!r}"), Usage()
    if ended not in ("stop", "length"):
        return completion("", "error", failed=f"the answer ended with finish_reason {ended!r}"), used
    if ended == "stop" and text is None:
        return completion("", "error", failed="the answer has no text"), used
    answer = completion(text or "", "end" if ended == "stop" else "length")
    if logprobs:
        answer.logprobs = aligned(choice, answer.ids)
    return answer, used


def aligned(choice: Mapping[str, Any], ids: np.ndarray) -> np.ndarray:
    """(t,) the server's log-probabilities of an answer of t bytes, each token's on its last byte and 0 on the others, so that sums are
    right; NaN where it gives none, or its tokens do not spell the answer."""
    try:
        tokens = [(bytes(t["bytes"] or t["token"].encode()), float(t["logprob"])) for t in choice["logprobs"]["content"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        tokens = []
    out = np.zeros(len(ids))
    tokens = [(piece, value) for piece, value in tokens if piece]
    if b"".join(piece for piece, _ in tokens) != ids.astype(np.uint8).tobytes() or not tokens:
        return np.full(len(ids), np.nan)
    ends = np.cumsum([len(piece) for piece, _ in tokens])
    out[ends - 1] = [value for _, value in tokens]
    return out


def _client(url: str, key: str, timeout: float, retries: int) -> AsyncOpenAI:
    """A client whose every try ends after `timeout`, to the last byte: httpx itself limits the wait for each piece only."""
    try:
        import httpx2
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient
    except ImportError:
        raise Refused("The backend openai needs the package openai: pip install 'guerdon[openai]'.") from None

    class Hard(DefaultAsyncHttpxClient):
        async def send(self, request: Any, **options: Any) -> Any:
            try:
                async with asyncio.timeout(timeout):
                    return await super().send(request, **options)
            except TimeoutError:
                raise httpx2.ReadTimeout("late", request=request) from None

    return AsyncOpenAI(base_url=url, api_key=key or "none", timeout=timeout, max_retries=retries, http_client=Hard())


def _reply() -> Any:
    import httpx2

    return httpx2.Response


def _retries(request: Any) -> int:
    return int(request.headers.get("x-stainless-retry-count", 0)) if request is not None else 0
