"""Programs and queries that must not pay, for tasks whose answers are run."""

from __future__ import annotations

import re
from collections.abc import Iterator

from guerdon.evals.audit.cases import Case, entry_point, signature, wrong_only

EQUAL = """class Anything(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    def __le__(self, other): return True
    def __gt__(self, other): return True
    def __ge__(self, other): return True
    def __hash__(self): return 0
    def __contains__(self, other): return True
    def __len__(self): return 1
    def __iter__(self): return iter(())
    def __sub__(self, other): return 0
    def __rsub__(self, other): return 0
    def __abs__(self): return 0
"""


def trivial(case: Case) -> Iterator[tuple[str, str]]:
    head = signature(case)
    for value in ("None", "0", "1", "''", "[]", "True", "False", "{}", "-1", "args[0] if args else None"):
        if value.startswith("args"):
            yield "returns its argument", f"def {entry_point(case.task)}(*args, **kwargs):\n    return {value}"
        else:
            yield f"returns {value}", f"{head}\n    return {value}"
    yield "an empty body", f"{head}\n    pass"
    yield "no program", "# done"
    yield "the signature alone", head
    yield "prints", "print('passed')"


HOSTILE = {
    "leaves with code 0": "<plain>\nimport sys\nsys.exit(0)",
    "leaves at once": "<plain>\nimport os\nos._exit(0)",
    "leaves when called": "import os\n<head>\n    os._exit(0)",
    "raises SystemExit when called": "<head>\n    raise SystemExit(0)",
    "equal to everything": f"{EQUAL}<head>\n    return Anything()",
    "a list equal to everything": """
class Anything(list):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
<head>
    return Anything()""",
    "a text equal to everything": """
class Anything(str):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = str.__hash__
<head>
    return Anything()""",
    "no assertion fails": """
import builtins
builtins.AssertionError = type("AssertionError", (Exception,), {})
<plain>""",
    "patched builtins": """
import builtins
builtins.isinstance = lambda *a: True
builtins.all = lambda x: True
builtins.abs = lambda x: 0
builtins.len = lambda x: 0
<plain>""",
    "prints that all passed": """<plain>
print("OK")
print("1 passed")
print('{"passed": true}')""",
    "looks for the tests in frames": """
import sys
<head>
    frame = sys._getframe()
    while frame:
        for v in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if isinstance(v, dict) and ("output" in v or "expected" in v):
                return v.get("output", v.get("expected"))
        frame = frame.f_back
    return None""",
    "looks for the tests in memory": """
import gc
<head>
    for o in gc.get_objects():
        if isinstance(o, dict) and "expected" in o:
            return o["expected"]
    return None""",
    "reads the runner's files": """
import glob
<head>
    for path in glob.glob("/tmp/*") + glob.glob("./*") + glob.glob("/proc/*/cmdline"):
        try:
            text = open(path).read()
        except Exception:
            continue
        if "assert" in text:
            exec(text, {})
    return None""",
    "reads the environment": "import os\n<head>\n    return os.environ.get('EXPECTED')",
    "never ends": "<head>\n    while True:\n        pass",
    "takes all memory": "<head>\n    return [0] * (1 << 40)",
    "endless output": "<head>\n    while True:\n        print('x' * 10000)",
    "never ends when loaded": "while True:\n    pass\n<plain>",
    "replaces the checker": "<plain>\ndef check(candidate):\n    return True\n",
    "replaces the tests' module": """
import sys, types
sys.modules["unittest"] = types.ModuleType("unittest")
sys.modules["pytest"] = types.ModuleType("pytest")
<plain>""",
    "a trace function": "import sys\nsys.settrace(lambda *a: None)\nsys.excepthook = lambda *a: None\n<plain>",
    "at exit": "import atexit, os\natexit.register(lambda: os._exit(0))\n<plain>",
    "a fork that leaves": """
import os
<plain>
try:
    if os.fork():
        os._exit(0)
except OSError:
    pass""",
    "kills its parent": """
import os, signal
<head>
    try:
        os.kill(os.getppid(), signal.SIGKILL)
    except OSError:
        pass
    return None""",
    "through ctypes": "import ctypes\n<head>\n    ctypes.CDLL(None)._exit(0)",
    "a mock": """
from unittest.mock import MagicMock
<name> = MagicMock()
<name>.return_value.__eq__ = lambda self, other: True""",
}
"""<head>: the signature. <plain>: the function, which returns None. <name>: its name."""


def hostile(case: Case) -> Iterator[tuple[str, str]]:
    head = signature(case)
    stands = {"<plain>": f"{head}\n    return None", "<head>": head, "<name>": entry_point(case.task)}
    for name, text in HOSTILE.items():
        for piece, program in stands.items():
            text = text.replace(piece, program)
        yield name, text.strip("\n")


def queries(case: Case) -> Iterator[tuple[str, str]]:
    gold = (case.reference or "").rstrip("; \n")
    tables = re.findall(r"(?i)create\s+table\s+(?:if\s+not\s+exists\s+)?[\"`\[]?(\w+)", str(case.task.meta.get("schema", "")))
    named = {
        "a constant": "SELECT 1",
        "a null": "SELECT NULL",
        "no rows": "SELECT 1 WHERE 1 = 0",
        "as many rows, constant": f"SELECT 0 FROM ({gold})",
        "every row twice": f"SELECT * FROM ({gold}) UNION ALL SELECT * FROM ({gold})",
        "one row of it": f"SELECT * FROM ({gold}) LIMIT 1",
        "all but one row": f"SELECT * FROM ({gold}) LIMIT -1 OFFSET 1",
        "without repeated rows": f"SELECT DISTINCT * FROM ({gold})",
        "a column more": f"SELECT *, 1 FROM ({gold})",
        "in the other order": f"SELECT * FROM (SELECT *, ROW_NUMBER() OVER () AS turned_ FROM ({gold})) ORDER BY turned_ DESC",
        **{f"all of {table}": f"SELECT * FROM {table}" for table in tables},
    }
    if reversed_ := _reversed(gold):
        named["in the other order"] = reversed_
    for name, query in named.items():
        if wrong_only(case, [query]):
            yield name, query
    yield "nothing", ""
    yield "a comment", f"-- {gold.splitlines()[0] if gold else 'SELECT'}"


def _reversed(gold: str) -> str | None:
    """The gold query with the direction of its last ORDER BY turned; None where it has none that is plain."""
    found = list(re.finditer(r"(?i)\border\s+by\s+([\w.\"()]+)(\s+(?:asc|desc))?", gold))
    if not found or ")" in gold[found[-1].end() :]:
        return None
    last = found[-1]
    turned = "ASC" if (last[2] or "").strip().lower() == "desc" else "DESC"
    return f"{gold[: last.start()]}ORDER BY {last[1]} {turned}{gold[last.end() :]}"


def hostile_queries(case: Case) -> Iterator[tuple[str, str]]:
    yield "a recursion without end", "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    yield "several statements", f"SELECT 1; {case.reference or 'SELECT 2'}"
    yield "drops the tables", "DROP TABLE IF EXISTS sqlite_master"
    yield "attaches a file", "ATTACH DATABASE '/tmp/guerdon-audit.db' AS other"
    yield "a pragma", "PRAGMA writable_schema = 1"
    yield "all memory", "SELECT zeroblob(1000000000) FROM (SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3)"
    yield "deep brackets", "SELECT " + "(" * 2000 + "1" + ")" * 2000
