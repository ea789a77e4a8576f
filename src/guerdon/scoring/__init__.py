"""One engine that scores samples by an expression, its cache and journal, and JSONL and Parquet in and out."""

from guerdon.scoring.cache import Cache as Cache
from guerdon.scoring.cache import Journal as Journal
from guerdon.scoring.engine import Engine as Engine
