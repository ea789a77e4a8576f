from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

pytest.importorskip("openrlhf", reason="openrlhf lives in the environment of `make test-integrations`")

from openrlhf.utils.agent import SingleTurnAgentExecutor

import guerdon as g
from guerdon.envs.tiny import tokenizer
from guerdon.integrations.openrlhf import Rewarder, answer_in, ended, main, server
from guerdon.registry import Refused
from guerdon.samples import Verdict

tries: list[str] = []


@g.reward(inline=True, name="rlhf_states", pure=False)
def states(text: str) -> float | Verdict | None:
    tries.append(text)
    if text == "twice" and len(tries) < 3:
        return Verdict.fail("grader down")
    return {"fail": Verdict.fail("grader down"), "none": None}.get(text, 0.5)


@g.reward(inline=True, name="rlhf_level")
def level(meta) -> float:
    return float(meta["level"])


@g.reward(name="rlhf_slow")
async def slow(text: str) -> float:
    await asyncio.sleep(0.3)
    return float(text)


@g.reward(name="rlhf_group")
def whole(group: list) -> list[float]:
    return [0.0] * len(group)


@pytest.fixture
def serve():
    running = []

    def start(expression, **options) -> str:
        found = server(Rewarder(expression, **options), port=0)
        running.append(found)
        threading.Thread(target=found.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{found.server_address[1]}/get_reward"

    yield start
    for found in running:
        found.shutdown()
        found.server_close()


def ask(url: str, data: object) -> tuple[int, dict]:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body)) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def one(text: str, label: object = "2") -> dict:
    return {"query": [f"q{text}"], "prompts": ["q"], "labels": [label]}


def test_the_page_runs(run_page):
    assert run_page("openrlhf")["reply"]["extra_logs"]["math"] == [1.0]


def test_several_queries_with_their_parts(serve):
    url = serve("gate(rlhf_states, exact) + 0.2 * rlhf_states")
    data = {"query": ["p2", "p3"], "prompts": ["p", "p"], "labels": ["2", "2"]}
    rewards = [1.1, 0.1]
    parts = {"rlhf_states": [0.5, 0.5], "exact": [1.0, 0.0]}
    assert ask(url, data) == (200, {"rewards": rewards, "scores": rewards, "extra_logs": parts})


def test_a_label_may_carry_meta(serve):
    assert ask(serve("rlhf_level + exact"), one("2", {"reference": "2", "level": 3}))[1]["rewards"] == [4.0]


def test_no_verdict_is_an_error_status(serve):
    status, reply = ask(serve("rlhf_states"), one("fail"))
    assert status == 503
    assert "grader down" in reply["error"]
    assert ask(serve("rlhf_states"), one("none"))[0] == 503
    assert ask(serve("rlhf_states", abstained=-1.0), one("none"))[1]["rewards"] == [-1.0]
    assert ask(serve("rlhf_states", abstained=-1.0), one("fail"))[0] == 503


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "no JSON"),
        ([1], "'query'"),
        ({"query": ["a"], "prompts": "a", "labels": ["a"]}, "'prompts'"),
        ({"query": ["a"], "prompts": ["a", "b"], "labels": ["a"]}, "1 queries, 2 prompts"),
        ({"query": ["xyz"], "prompts": ["a"], "labels": ["a"]}, "does not hold its prompt"),
    ],
)
def test_a_request_that_cannot_be_read_is_400(serve, data, says):
    status, reply = ask(serve("exact"), data)
    assert status == 400
    assert says in reply["error"]


def test_where_the_answer_begins():
    assert answer_in("1+1=2", "1+1=") == "2"
    assert answer_in("<s> 1+1=2", "1+1=") == "2"
    prompt = "What is one and one? Think, then answer.\n"
    assert answer_in(prompt[20:] + "2" + prompt[30:], prompt) == "2" + prompt[30:]  # the beginning of a long prompt was cut off
    with pytest.raises(Refused):
        answer_in(prompt[-3:] + "2", prompt)
    with pytest.raises(Refused):
        answer_in("abc", "xyz")


@pytest.mark.parametrize("end", ["<|im_end|>", "</s>", "<|eot_id|>\n", "<eos><eos>", "<mine>"])
def test_special_tokens_at_the_end_are_no_answer(serve, end):
    assert ask(serve("exact", strip=["<mine>"]), one(f"A: 2{end}"))[1]["rewards"] == [1.0]


def test_the_end_of_a_text_is_read_in_linear_time():
    for text in ("<eos>" * 200_000, " " * 1_000_000 + "x", "<" * 1_000_000):
        start = time.perf_counter()
        assert ended(text) == ("" if text.startswith("<eos>") else text)
        assert time.perf_counter() - start < 1


def test_openrlhfs_own_executor_asks_again_until_there_is_a_verdict(serve):
    """Its whole rollout of one answer, with an engine that says what it is told."""
    words = tokenizer()
    tries.clear()

    async def generate(prompt_ids, params, multi_modal_data=None):
        ids = [*words("twice")["input_ids"], words.eos_token_id]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, finish_reason="stop", logprobs=None)])

    url = serve("rlhf_states", strip=[words.eos_token])
    executor = SingleTurnAgentExecutor(url)
    params = SimpleNamespace(max_tokens=16, logprobs=None)
    start = time.perf_counter()
    found = asyncio.run(executor.execute("1+1=", "2", params, 64, words, SimpleNamespace(generate=generate)))
    assert found["reward"] == [0.5]
    assert found["scores"] == [0.5]
    assert found["extra_logs"] == {"rlhf_states": [0.5]}
    assert tries == ["twice"] * 3
    assert time.perf_counter() - start > 2  # a second between tries


def test_requests_of_one_moment_are_judged_side_by_side(serve):
    url = serve("rlhf_slow")
    replies: list = [None] * 8
    threads = [threading.Thread(target=lambda i=i: replies.__setitem__(i, ask(url, one(str(i))))) for i in range(8)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.perf_counter() - start < 1.5  # one after the other they take 2.4 s
    assert [reply[1]["rewards"] for reply in replies] == [[float(i)] for i in range(8)]


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("rlhf_group", "the reward 'rlhf_group' compares a whole group"),
        ("exact | group_norm", "the shape 'group_norm' sees a whole group"),
        ("arithmetic_steps", "gives step rewards"),
        ("length", "sends text only"),
    ],
)
def test_what_one_answer_does_not_show_is_refused(expression, says, capsys):
    with pytest.raises(Refused, match=says):
        Rewarder(expression)
    with pytest.raises(SystemExit) as error:
        main([expression])
    assert error.value.code == 2
    assert says in capsys.readouterr().err


def test_the_command_serves(tmp_path):
    (tmp_path / "mine.py").write_text("import guerdon as g\n@g.reward(inline=True)\ndef mine(text: str) -> float:\n    return 7.0\n")
    run = [sys.executable, "-m", "guerdon.integrations.openrlhf", "mine", "--plugin", "mine.py", "--port", "0"]
    with subprocess.Popen(run, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert ask(url, one("x"))[1]["rewards"] == [7.0]
        process.terminate()
