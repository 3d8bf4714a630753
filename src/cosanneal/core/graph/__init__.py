"""A schedule inside a traced graph: what an adapter needs of it."""

from .evaluate import evaluate as evaluate
from .evaluate import is_cycle_end as is_cycle_end
from .table import Ends as Ends
from .table import Table as Table
