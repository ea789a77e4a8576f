"""The audit: try to cheat a reward before a policy does."""

from guerdon.evals.audit.audit import Answers as Answers
from guerdon.evals.audit.audit import Report as Report
from guerdon.evals.audit.audit import audit as audit
from guerdon.evals.audit.audit import read as read
