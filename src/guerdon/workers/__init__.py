"""Processes that can be killed: whatever parses or runs what a model wrote runs here."""

from guerdon.workers.pool import Outcome as Outcome
from guerdon.workers.pool import Pool as Pool
from guerdon.workers.pool import shared as shared
from guerdon.workers.sandbox import Job as Job
from guerdon.workers.sandbox import Sandbox as Sandbox
from guerdon.workers.sandbox import Tested as Tested
