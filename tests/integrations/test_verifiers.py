from __future__ import annotations

import asyncio
import os

import pytest

pytest.importorskip("verifiers", reason="verifiers lives in the environment of `make test-integrations`")

import verifiers.v1 as vf

import guerdon as g
from guerdon.integrations.verifiers import reward
from guerdon.registry import Refused
from guerdon.samples import Verdict

seen: list[dict] = []


@g.reward(inline=True, name="vf_states")
def states(text: str) -> float | Verdict | None:
    return {"fail": Verdict.fail("grader down"), "none": None}.get(text, 0.5)


@g.reward(inline=True, name="vf_fields")
def fields(prompt, text, thinking, answer, messages, meta) -> float:
    seen.append({"prompt": prompt, "text": text, "thinking": thinking, "answer": answer, "messages": messages, "meta": meta})
    return 1.0


@g.reward(name="vf_slow")
async def slow(text: str) -> float:
    await asyncio.sleep(0.3)
    return float(text)


@g.reward(name="vf_group")
def whole(group: list) -> list[float]:
    return [0.0] * len(group)


class Data(vf.TaskData):
    answer: str = "2"
    level: int = 3


def trace(task: vf.Task, *messages) -> vf.Trace:
    made = vf.Trace(
        task=vf.TraceTask(type="T", data=vf.WireTaskData(**task.data.model_dump())), agent=vf.AgentInfo(config=vf.AgentConfig())
    )
    made.nodes = [
        vf.MessageNode(parent=i - 1 if i else None, sampled=isinstance(m, vf.AssistantMessage), message=m) for i, m in enumerate(messages)
    ]
    return made


def task_with(fn) -> vf.Task:
    class Graded(vf.Task[Data]):
        graded = fn

    return Graded(Data(prompt="1+1="))


def score(task: vf.Task, *said) -> vf.Trace:
    made = trace(task, vf.UserMessage(content="1+1="), *said)
    asyncio.run(task.score(made))
    return made


def test_the_page_runs(run_page):
    assert run_page("verifiers")["trace"].metrics == {"graded/exact": 1.0, "graded/format": 1.0}


def test_weight_name_and_parts():
    task = task_with(reward("gate(vf_states, exact) + 0.1 * vf_states", name="mine", weight=2.0))
    found = score(task, vf.AssistantMessage(content="A: 2"))
    assert found.rewards["mine"].score == pytest.approx(1.05)
    assert found.reward == pytest.approx(2.1)
    assert found.metrics == {"mine/vf_states": 0.5, "mine/exact": 1.0}


def test_failed_is_an_error_and_abstained_no_reward():
    task = task_with(reward("vf_states"))
    made = trace(task, vf.UserMessage(content="q"), vf.AssistantMessage(content="fail"))
    with pytest.raises(vf.TaskError, match="grader down"):
        asyncio.run(task.score(made))
    assert made.rewards == {"guerdon": None}
    assert score(task, vf.AssistantMessage(content="none")).rewards == {}


def test_the_text_is_all_that_follows_the_prompt():
    seen.clear()
    tool = vf.ToolMessage(tool_call_id="1", content="4", name="calc")
    call = vf.AssistantMessage(content="let me see", tool_calls=[vf.ToolCall(id="1", name="calc", arguments="2+2")])
    last = vf.AssistantMessage(content="A: 4", reasoning_content="easy")
    score(task_with(reward("vf_fields")), call, tool, last)
    [given] = seen
    assert given["prompt"] == [{"role": "user", "content": "1+1="}]
    assert given["text"] == "let me see\n4\n<think>easy</think>A: 4"
    assert (given["thinking"], given["answer"]) == ("easy", "4")
    assert [m["role"] for m in given["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert given["meta"]["level"] == 3
    assert "answer" not in given["meta"]


def test_a_function_plugged_in_by_path(tmp_path):
    (tmp_path / "mine.py").write_text("from guerdon.integrations.verifiers import reward\ngraded = reward('exact', name='other')\n")
    config = vf.TaskConfig(rewards={"plugged": {"fn": f"{tmp_path}/mine.py:graded", "weight": 3.0}})
    task = vf.Task[Data](Data(prompt="1+1="), config)
    found = score(task, vf.AssistantMessage(content="2"))
    assert found.reward == 3.0


def test_traces_of_one_moment_are_scored_side_by_side():
    import time

    task = task_with(reward("vf_slow"))
    traces = [trace(task, vf.UserMessage(content="q"), vf.AssistantMessage(content=str(i))) for i in range(8)]

    async def all_of_them():
        await asyncio.gather(*(task.score(t) for t in traces))

    start = time.perf_counter()
    asyncio.run(all_of_them())
    assert time.perf_counter() - start < 1.5  # one after the other they take 2.4 s
    assert [t.reward for t in traces] == list(map(float, range(8)))


def test_a_process_that_the_host_forks_scores_too():
    task = task_with(reward("vf_states"))
    score(task, vf.AssistantMessage(content="x"))
    child = os.fork()
    if child == 0:
        os._exit(0 if score(task, vf.AssistantMessage(content="x")).reward == 0.5 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("vf_group", "the reward 'vf_group' compares a whole group"),
        ("exact | group_norm", "the shape 'group_norm' sees a whole group"),
        ("exact | multiplier(threshold=0.5)", "the shape 'multiplier' learns from whole batches"),
        ("arithmetic_steps", "gives step rewards"),
        ("length", "reads 'ids'"),
    ],
)
def test_what_one_trace_does_not_show_is_refused(expression, says):
    with pytest.raises(Refused, match=says):
        reward(expression)


GRADER = """
import verifiers.v1 as vf
@vf.reward
async def mentions(task, trace):
    said = trace.branches[-1].nodes[-1].message.content
    return float(task.answer in said)
"""


def test_a_reward_of_traces_can_be_audited(tmp_path) -> None:
    from guerdon.evals.audit import audit

    (tmp_path / "graders.py").write_text(GRADER)
    tasks = [g.Task(str(i), f"What is {i} + {i}?", str(2 * i)) for i in range(11, 15)]
    report = audit(f"{tmp_path}/graders.py:mentions", tasks, searching=False)
    assert report.written_for == "verifiers"
    assert report.scale.gap == 1
    assert any(f.family == "hedges" for f in report.exploits)
