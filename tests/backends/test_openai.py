"""The backend openai against a real server on the loopback that does everything a server can do wrong."""

from __future__ import annotations

import http.server
import json
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from guerdon.backends.base import SamplingParams
from guerdon.backends.openai import VERBS, aligned, openai, read
from guerdon.backends.scripted import to_ids
from guerdon.registry import Refused, find
from guerdon.scoring.job import score_file, with_models
from guerdon.training.run import train

KEY = "sk-secret-123456"


class Fake(http.server.ThreadingHTTPServer):
    """Answers each request by `does(handler, body, times)`; times: how often the same question was asked before."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, does: Callable[[Handler, dict[str, Any], int], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.does, self.lock = does, threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.seen: Counter[str] = Counter()
        self.running = self.most = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Fake

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.keys.add(self.headers["authorization"])
            times = self.server.seen[question]
            self.server.seen[question] += 1
            self.server.running += 1
            self.server.most = max(self.server.most, self.server.running)
        try:
            self.server.does(self, body, times)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.running -= 1

    def say(self, text: str | None, finish: str = "stop", **more: Any) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}
        self.reply(200, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}).encode())

    def reply(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def serve():
    """serve(does, **parameters) -> (server, model)."""
    open_: list[Any] = []

    def start(does: Callable[..., None], **params: Any) -> tuple[Fake, Any]:
        server = Fake(does)
        model = openai("m", server.url, **{"key_env": "NO_SUCH_KEY", "timeout": 5.0, "retries": 2, **params})
        open_.extend([model.close, server.shutdown, server.server_close])
        return server, model

    yield start
    for close in open_:
        close()


def ask(model: Any, questions: list[str], n: int = 1, want: tuple[str, ...] = (), **params: Any) -> list[list[Any]]:
    return model.sample([model.encode(q) for q in questions], n, SamplingParams(**params), want)[0]


def texts(model: Any, groups: list[list[Any]]) -> list[list[str]]:
    return [[model.decode(c.ids)[0] for c in group] for group in groups]


def echo(handler: Handler, body: dict[str, Any], times: int) -> None:
    handler.say(body["messages"][-1]["content"].upper())


def test_answers_come_in_order_with_what_they_cost(serve):
    def slow_first(handler, body, times):
        time.sleep(0.2 if body["messages"][-1]["content"] == "q0" else 0.0)
        echo(handler, body, times)

    server, model = serve(slow_first, prompt_price=2.0, new_price=8.0)
    prefixes = [model.encode([{"role": "system", "content": "S"}, {"role": "user", "content": f"q{i}"}]) for i in range(5)]
    groups, usage = model.sample(prefixes, 2, SamplingParams(max_tokens=7, temperature=0.5, top_p=0.9, seed=3))
    assert texts(model, groups) == [[f"Q{i}"] * 2 for i in range(5)]
    assert all(c.stop == "end" and not c.failed and np.isnan(c.logprobs).all() and len(c.logprobs) == 2 for g in groups for c in g)
    assert (usage.prompt, usage.new) == (100, 50)
    body = next(b for b in server.bodies if b["messages"][-1]["content"] == "q3" and b["seed"] == 4)
    assert body["messages"][0] == {"role": "system", "content": "S"}
    assert {k: body[k] for k in ("model", "max_tokens", "temperature", "top_p")} == {
        "model": "m", "max_tokens": 7, "temperature": 0.5, "top_p": 0.9,
    }  # fmt: skip
    a = model.account
    assert (a.requests, a.retries, a.failed, a.prompt, a.new) == (10, 0, 0, 100, 50)
    assert a.cost == pytest.approx((100 * 2 + 50 * 8) / 1e6)
    assert a.seconds > 0.2
    assert str(a).startswith("10 requests (0 retries, 0 failed), 100 prompt and 50 new tokens")


def test_a_rate_limit_is_waited_for_as_the_server_asks(serve):
    times_of: list[float] = []

    def limited(handler, body, times):
        times_of.append(time.monotonic())
        handler.reply(429, b"{}", retry_after="0.3") if times == 0 else echo(handler, body, times)

    _, model = serve(limited)
    assert texts(model, ask(model, ["a"])) == [["A"]]
    assert times_of[1] - times_of[0] >= 0.3
    assert (model.account.requests, model.account.retries, model.account.failed) == (1, 1, 0)


def test_a_server_that_stays_broken_gives_a_failed_answer_that_says_so(serve):
    _, model = serve(lambda handler, body, times: handler.reply(500, b'{"error": "out of memory"}', retry_after="0.01"))
    ((answer,),) = ask(model, ["a"])
    assert (answer.stop, len(answer.ids)) == ("error", 0)
    assert answer.failed == f'{model.url}: status 500 after 3 tries: {{"error": "out of memory"}}'
    assert (model.account.requests, model.account.retries, model.account.failed) == (1, 2, 1)


def hang(handler: Handler, body: dict[str, Any], times: int) -> None:
    time.sleep(2.0)
    echo(handler, body, times)


def drip(handler: Handler, body: dict[str, Any], times: int) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    for _ in range(40):  # a byte now and then: no single wait is long
        handler.wfile.write(b" ")
        time.sleep(0.05)


@pytest.mark.parametrize("late", [hang, drip])
def test_a_late_answer_is_failed_at_the_deadline(serve, late):
    _, model = serve(late, timeout=0.3, retries=0)
    began = time.monotonic()
    ((answer,),) = ask(model, ["a"])
    assert answer.failed == f"{model.url}: no answer within 0.3 s"
    assert time.monotonic() - began < 1.5


def test_a_try_that_hangs_is_tried_again(serve):
    _, model = serve(lambda handler, body, times: (hang if times == 0 else echo)(handler, body, times), timeout=0.3, retries=1)
    assert texts(model, ask(model, ["a"])) == [["A"]]
    assert model.account.retries == 1


def test_no_server_is_no_reason_to_refuse_and_says_which_url():
    with Fake(echo) as server:
        url = server.url
        server.shutdown()
    model = openai("m", url, retries=0)
    ((answer,),) = ask(model, ["a"])
    assert answer.failed.startswith(f"{url}: no connection")
    model.close()


def test_a_server_that_is_down_is_not_tried_again_for_every_request_and_may_come_back(serve):
    def work(handler, body, times):
        handler.connection.shutdown(socket.SHUT_RDWR) if dead else echo(handler, body, times)

    dead = True
    _, model = serve(work, concurrency=1, retries=1)
    assert all(group[0].failed for group in ask(model, list("abcdef")))
    assert (model.account.failed, model.account.retries) == (6, 1)
    dead = False
    assert texts(model, ask(model, ["g"])) == [["G"]]
    dead = True
    ask(model, ["h", "i"])
    assert (model.account.failed, model.account.retries) == (8, 2)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"choices": [{"mess', "no chat completion"),
        (b"<html>Welcome</html>", "no chat completion"),
        (b"", "no chat completion"),
        (b"[]", "no chat completion"),
        (b"[" * 100_000, "no chat completion"),
        (b'"choices"', "no chat completion"),
        (b'{"choices": []}', "no chat completion"),
        (b'{"choices": [{}]}', "no chat completion"),
        (b'{"choices": [{"message": null, "finish_reason": "stop"}]}', "no chat completion"),
        (b'{"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}', "no chat completion"),
        (b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": "x"}}', "no chat completion"),
        (b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}', "no text"),
        (b'{"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]}', "content_filter"),
        (b'{"choices": [{"message": {"content": "x"}}]}', "finish_reason None"),
    ],
)
def test_what_is_no_answer_is_failed(content, why):
    answer, _ = read(content)
    assert why in answer.failed
    assert (answer.stop, len(answer.ids)) == ("error", 0)


def test_an_answer_that_was_cut_off_says_so(serve):
    _, model = serve(lambda handler, body, times: handler.say("abc", "length"))
    ((answer,),) = ask(model, ["a"])
    assert (answer.stop, answer.failed, model.decode(answer.ids)[0]) == ("length", "", "abc")


def test_no_more_requests_are_in_flight_than_allowed_over_calls_and_threads(serve):
    def work(handler, body, times):
        time.sleep(0.03)
        echo(handler, body, times)

    server, model = serve(work, concurrency=3)
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda k=k: found.update({k: texts(model, ask(model, [f"{k}-{i}" for i in range(8)]))})) for k in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most == 3
    assert found == {k: [[f"{k}-{i}"] for i in range(8)] for k in range(3)}


def test_one_bad_request_among_fifty_costs_only_itself(serve):
    def work(handler, body, times):
        number = int(body["messages"][-1]["content"])
        handler.reply(400, b"prompt is too long") if number == 17 else echo(handler, body, times)

    _, model = serve(work)
    answers = [group[0] for group in ask(model, [str(i) for i in range(50)])]
    assert [i for i, c in enumerate(answers) if c.failed] == [17]
    assert answers[17].failed == f"{model.url}: status 400: prompt is too long"
    assert [model.decode(c.ids)[0] for c in answers if not c.failed] == [str(i) for i in range(50) if i != 17]
    assert (model.account.requests, model.account.retries, model.account.failed) == (50, 0, 1)


def test_the_key_is_sent_and_never_told(serve, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    server, model = serve(lambda handler, body, times: handler.reply(401, f"bad key {KEY}".encode()), key_env="MY_KEY")
    ((answer,),) = ask(model, ["a"])
    assert server.keys == {f"Bearer {KEY}"}
    assert answer.failed == f"{model.url}: status 401: bad key [key]"
    assert KEY not in repr(model) + str(model.account)
    server, model = serve(lambda handler, body, times: handler.reply(401, b"who are you"))
    assert "the environment variable NO_SUCH_KEY holds no key" in ask(model, ["a"])[0][0].failed


def test_fields_of_a_request_are_added_and_taken_out(serve):
    server, model = serve(echo, extra={"max_tokens": None, "max_completion_tokens": 9})
    ask(model, ["a"], top_k=5)
    assert "max_tokens" not in server.bodies[0]
    assert (server.bodies[0]["max_completion_tokens"], server.bodies[0]["top_k"]) == (9, 5)


def test_log_probabilities_of_the_server_stand_on_the_last_byte_of_each_token(serve):
    pieces = [("é", -0.5, list("é".encode())), ("a", -0.25, None), ("", -0.1, [])]
    content = [{"token": token, "logprob": value, "bytes": raw} for token, value, raw in pieces]
    server, model = serve(lambda handler, body, times: handler.say("éa", logprobs={"content": content}))
    ((answer,),) = ask(model, ["q"], want=("logprobs",))
    assert server.bodies[0]["logprobs"] is True
    assert answer.logprobs.tolist() == [0.0, -0.5, -0.25]
    assert math.isnan(ask(model, ["q"])[0][0].logprobs.sum())
    assert math.isnan(ask(model, ["q"], want=("logprobs",), temperature=0.5)[0][0].logprobs.sum())
    assert np.isnan(aligned({"logprobs": {"content": content[1:]}}, to_ids("éa"))).all()
    assert np.isnan(aligned({}, to_ids("a"))).all()


def test_any_text_survives_the_way_there(serve):
    server, model = serve(echo)
    question = 'a"\\\n\x00 é 🎲 \ud800'
    ask(model, [question])
    assert server.bodies[0]["messages"] == [{"role": "user", "content": question.replace("\ud800", "?")}]
    text, offsets = model.decode(model.encode_answer("é🎲a"))
    assert (text, offsets.tolist()) == ("é🎲a", [[0, 1]] * 2 + [[1, 2]] * 4 + [[2, 3]])


def test_what_cannot_be_done_is_refused_by_name():
    model = openai("m", "http://127.0.0.1:9/v1")
    for verb in VERBS:
        with pytest.raises(Refused, match=f"'{verb}' needs the weights"):
            getattr(model, verb)
    with pytest.raises(Refused, match="no stop texts"):
        ask(model, ["a"], stop=("x",))
    with pytest.raises(Refused, match="whole prompts"):
        model.sample([np.array([65])], 1, SamplingParams())
    model.close()
    assert find("backend", "openai").about["only"] == "sample"


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"path": None}, "has no name"),
        ({"url": "127.0.0.1:8000"}, "is such as"),
        ({"url": f"http://me:{KEY}@h/v1"}, "holds a key"),
        ({"url": f"http://h/v1?key={KEY}"}, "holds a key"),
        ({"concurrency": 0}, "concurrency"),
        ({"trainable": True}, "cannot train"),
    ],
)
def test_a_model_that_cannot_be_meant_is_refused(params, why):
    with pytest.raises(Refused, match=why) as error:
        openai(**{"path": "m", "url": "http://127.0.0.1:9/v1", **params})
    assert KEY not in str(error.value)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(Refused, match=r"guerdon\[openai\]"):
        openai("m", "http://127.0.0.1:9/v1")


def test_a_file_is_scored_by_a_judge_behind_a_server(serve, tmp_path, monkeypatch):
    """The whole way: options of the command line, requests, verdicts, a request that fails, the account."""

    def judging(handler, body, times):
        shown = body["messages"][-1]["content"]
        if "broken" in shown:
            handler.reply(400, b"no")
        else:
            handler.say('So.\n{"score": 10}' if "good" in shown else '{"score": 1}')

    server, _ = serve(judging)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    rows = [{"prompt": f"q{i}", "completion": text} for i, text in enumerate(["good", "bad", "broken", "good <|im_end|>"])]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    context = with_models([f"judge={server.url}#some/model"])
    summary = score_file(tmp_path / "in.jsonl", "judge", tmp_path / "out.jsonl", context=context)
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in out] == [1.0, 0.0, None, 0.0]
    assert [row["state"] for row in out] == ["scored", "scored", "failed", "scored"]
    assert server.bodies[0]["model"] == "some/model"
    assert summary.accounts["judge"].startswith("3 requests (0 retries, 1 failed), 20 prompt and 10 new tokens")
    assert any("judge: 3 requests" in str(line) for line in summary.show())
    context.models["judge"].close()


def test_a_policy_behind_a_server_is_refused_before_anything_runs(tmp_path):
    models = {"policy": {"backend": "openai", "path": "m", "url": "http://127.0.0.1:9/v1"}}
    with pytest.raises(Refused, match="'policy' is trained, which the backend 'openai' cannot"):
        train(folder=tmp_path / "run", models=models, tasks={"use": "arithmetic", "n": 4}, reward="math")
    assert not list(tmp_path.glob("run/samples/*"))
