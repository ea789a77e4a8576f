"""OpenRLHF: a reward expression behind its HTTP contract, or in its reward file. Written against openrlhf 0.11.2.

    python -m guerdon.integrations.openrlhf "gate(format, math)" --port 5000
    python -m openrlhf.cli.train_ppo_ray ... --reward.remote_url http://localhost:5000/get_reward

POST {query, prompts, labels}, lists of equal length -> {rewards, scores, extra_logs}. A query is prompt and answer with special tokens; the
label is the reference. An answer without a verdict is answered with an error status, on which OpenRLHF asks again; it is never 0.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from guerdon.integrations.common import Scorer, Together, sample_of, unscored, wants
from guerdon.registry import Broke, Refused
from guerdon.rewards.expr import Expr
from guerdon.samples import Context, Sample, Task
from guerdon.scoring.job import load_plugin

MEND = "OpenRLHF asks for one answer at a time; train with `guerdon train`, or use TRL or verl."
END = re.compile(r"<\|[\w-]{1,40}\|>|</s>|<eos>|<end_of_turn>|<pad>")
"""Special tokens in which chat models end an answer."""
TAIL = 16
"""Characters of a prompt, at least, by which the rest of one whose beginning was cut off is known."""
LARGEST = 64 * 2**20
"""Bytes of a request."""


class Rewarder:
    """`reward_func(queries, prompts, labels)` of OpenRLHF, for a reward file (`reward_func = Rewarder("math")`) and for the server.

    strip: special tokens to take out of answers beside those that end them (`END`). abstained: the number for an answer to which the
    reward does not apply; without one that is an error too, for OpenRLHF cannot leave a row out. Raises Refused for rewards of groups, of
    steps and of token ids.
    """

    def __init__(
        self,
        expression: Expr | str,
        *,
        split: str = "lines",
        strip: Sequence[str] = (),
        abstained: float | None = None,
        context: Context | None = None,
        **engine: Any,
    ) -> None:
        self.scorer = Scorer(expression, context, **engine)
        self.scorer.refuse_groups("OpenRLHF", MEND)
        self.scorer.refuse_fine("A reward of OpenRLHF", MEND)
        for field in ("ids", "logprobs"):
            if wants(self.scorer.expression, field):
                raise Refused(f"`{self.scorer.expression}` reads {field!r}, and OpenRLHF sends text only.")
        self.together = Together(self.scorer)
        self.split, self.strip, self.abstained = split, tuple(strip), abstained

    def __call__(self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any]) -> dict[str, Any]:
        """Lists with an entry a query; extra_logs has every part (0 where a closed gate left it out). Raises Broke without a verdict."""
        if not len(queries) == len(prompts) == len(labels):
            raise Refused(f"{len(queries)} queries, {len(prompts)} prompts and {len(labels)} labels; there is one of each an answer.")
        asked = [self.together.submit(self.sample(*row)) for row in zip(queries, prompts, labels, strict=True)]
        rewards, logs = [], []
        for future in asked:
            found = future.result()
            why = unscored(found)
            assert found.outcome is not None
            if why is not None and (found.failed[0] or self.abstained is None):
                raise Broke(f"`{self.scorer.expression}` has no verdict on this answer: {why}")
            rewards.append(self.abstained if why is not None else float(found.outcome.value[0]))
            logs.append({name: float(part.rewards.total()[0]) for name, part in found.parts.items()})
        names = list(logs[0]) if logs else []
        return {"rewards": rewards, "scores": rewards, "extra_logs": {name: [row[name] for row in logs] for name in names}}

    def sample(self, query: str, prompt: str, label: Any) -> Sample:
        own = dict(label) if isinstance(label, dict) else {"reference": label}
        reference = own.pop("reference", None)
        text = answer_in(query, prompt)
        for token in self.strip:
            text = text.replace(token, "")
        return sample_of(Task("", prompt, reference, own), ended(text), self.split)


def answer_in(query: str, prompt: str) -> str:
    """What follows the prompt in a query; also where tokens before it were added or OpenRLHF cut its beginning off. Raises Refused."""
    at = query.find(prompt)
    if at >= 0:
        return query[at + len(prompt) :]
    for cut in range(1, len(prompt) - TAIL + 1):
        if query.startswith(prompt[cut:]):
            return query[len(prompt) - cut :]
    raise Refused(f"The query {query[:80]!r} does not hold its prompt {prompt[:80]!r}, so nobody knows where the answer begins.")


def ended(text: str) -> str:
    """The text without the special tokens at its end."""
    end = len(text)
    while True:
        last = end
        while last and text[last - 1].isspace():
            last -= 1
        start = text.rfind("<", max(0, last - 48), last)
        if start < 0 or not END.fullmatch(text, start, last):
            return text[:end]
        end = start


def server(rewarder: Rewarder, host: str = "127.0.0.1", port: int = 5000) -> ThreadingHTTPServer:
    """A server, not started: `server(...).serve_forever()`. Port 0 takes a free one, see `server_address`.

    POST at any path. 200 with the rewards; 503 where there is no verdict; 400 for a request that cannot be read. GET answers 200.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 600

        def do_POST(self) -> None:
            try:
                size = int(self.headers.get("Content-Length") or 0)
                if not 0 < size <= LARGEST:
                    raise Refused(f"A request of {size} bytes; it has 1 to {LARGEST}.")
                self.reply(200, rewarder(*fields(self.rfile.read(size))))
            except Refused as error:
                self.close_connection = True  # the body may not have been read
                self.reply(400, {"error": str(error)})
            except Exception as error:  # a shape that raised, workers that were killed: the host tries again
                self.reply(503, {"error": f"{type(error).__name__}: {error}"})

        def do_GET(self) -> None:
            self.reply(200, {"reward": str(rewarder.scorer.expression)})

        def reply(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            if status != 200:
                print(content["error"], file=sys.stderr)

        def log_request(self, *_: Any) -> None:  # a line a reward is no news
            pass

    return ThreadingHTTPServer((host, port), Handler)


def fields(body: bytes) -> tuple[list[str], list[str], list[Any]]:
    """query, prompts and labels of a request. Raises Refused."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(f"The request is no JSON: {error}.") from None
    found = [data.get(name) if isinstance(data, dict) else None for name in ("query", "prompts", "labels")]
    query, prompts, labels = found
    labels = [None] * len(query) if labels is None and isinstance(query, list) else labels
    for name, column in zip(("query", "prompts", "labels"), (query, prompts, labels), strict=True):
        texts = name == "labels" or (isinstance(column, list) and all(isinstance(x, str) for x in column))
        if not isinstance(column, list) or not texts:
            raise Refused(f"The field {name!r} of the request is to be a list{'' if name == 'labels' else ' of texts'}.")
    assert isinstance(query, list)
    assert isinstance(prompts, list)
    assert isinstance(labels, list)
    return query, prompts, labels


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m guerdon.integrations.openrlhf",
        description='Serve a reward to OpenRLHF. Example: python -m guerdon.integrations.openrlhf "gate(format, math)" --port 5000',
    )
    parser.add_argument("expression", help="the reward, as in a recipe")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for other machines (default %(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="(default %(default)s)")
    parser.add_argument("--plugin", action="append", default=[], help="a file.py or module that defines rewards; may be given again")
    parser.add_argument("--split", default="lines", help="how steps are cut (default %(default)s)")
    parser.add_argument("--strip", action="append", default=[], help="a special token to take out of answers; may be given again")
    parser.add_argument("--abstained", type=float, help="the number where the reward does not apply; without it that is an error")
    parser.add_argument("--workers", type=int, help="processes for rewards that parse what a model wrote (default: one a core)")
    given = parser.parse_args(arguments)
    try:
        for name in given.plugin:
            load_plugin(name)
        rewarder = Rewarder(given.expression, split=given.split, strip=given.strip, abstained=given.abstained, workers=given.workers)
        found = server(rewarder, given.host, given.port)
    except (Refused, OSError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    host, port = found.server_address[:2]
    print(f"`{rewarder.scorer.expression}` at http://{host}:{port}/get_reward", flush=True)
    try:
        found.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        found.server_close()
        rewarder.scorer.engine.close()


if __name__ == "__main__":
    main()
