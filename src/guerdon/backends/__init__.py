"""Where models run: one seam, six verbs."""

from guerdon.backends import tabular as tabular
