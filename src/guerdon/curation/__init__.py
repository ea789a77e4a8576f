"""Which tasks are drawn, which rows are trained on."""

from guerdon.curation.advantage import advantage_filter as advantage_filter
from guerdon.curation.core import keep as keep
from guerdon.curation.core import select as select
from guerdon.curation.factors import ranked_factors as ranked_factors
from guerdon.curation.judgments import longest_right as longest_right
from guerdon.curation.links import linked as linked
from guerdon.curation.pairs import all_pairs as all_pairs
from guerdon.curation.pairs import best_worst as best_worst
from guerdon.curation.pairs import fair_reference as fair_reference
from guerdon.curation.pairs import margin_pairs as margin_pairs
from guerdon.curation.process import prof as prof
from guerdon.curation.rows import accuracy_band as accuracy_band
from guerdon.curation.rows import dynamic_sampling as dynamic_sampling
from guerdon.curation.rows import one_each as one_each
from guerdon.curation.rows import overlong_filter as overlong_filter
from guerdon.curation.rows import overlong_mask as overlong_mask
from guerdon.curation.spread import reflective as reflective
from guerdon.curation.spread import std_filter as std_filter
from guerdon.curation.strength import preference_strength as preference_strength
from guerdon.curation.strength import relabel as relabel
from guerdon.curation.tasks import epochs as epochs
from guerdon.curation.tasks import prioritised as prioritised
from guerdon.curation.tasks import uniform as uniform
from guerdon.curation.value import by_value as by_value
from guerdon.curation.value import value_weights as value_weights
