"""The search of a sweep, on Optuna in memory. Nothing else imports Optuna.

`search` is the search itself; the other modules are its parts, by what they know.
"""

from runstone_sweeps.study.convert import to_optuna
from runstone_sweeps.study.importance import find_importances
from runstone_sweeps.study.pruners import PrunerAudit, pruner_audit
from runstone_sweeps.study.search import Asked, Search, check_algorithms, propose, search_of
from runstone_sweeps.study.seeds import derive_seed

__all__ = [
    "Asked", "PrunerAudit", "Search", "check_algorithms", "derive_seed", "find_importances", "propose",
    "pruner_audit", "search_of", "to_optuna",
]  # fmt: skip
