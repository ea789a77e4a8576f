"""Where models run: one seam, six verbs."""

from guerdon.backends import local as local
from guerdon.backends import openai as openai
from guerdon.backends import tabular as tabular
