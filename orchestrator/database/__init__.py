"""The results database: grids, trials, attempts and epochs, which reports read."""

from orchestrator.database.driver import driver_lock
from orchestrator.database.errors import Busy, DatabaseAway, DatabaseError
from orchestrator.database.open import open_database
from orchestrator.database.store import Database
from orchestrator.database.user_sql import Answer, answer, schema_rows
from orchestrator.database.values import now
from orchestrator.records import (
    AttemptFacts,
    AttemptRow,
    Driver,
    Extent,
    FailureRow,
    GridRow,
    MeasuredRow,
    PartRow,
    TrialState,
)

__all__ = [
    "Answer",
    "AttemptFacts",
    "AttemptRow",
    "Busy",
    "Database",
    "DatabaseAway",
    "DatabaseError",
    "Driver",
    "Extent",
    "FailureRow",
    "GridRow",
    "MeasuredRow",
    "PartRow",
    "TrialState",
    "answer",
    "driver_lock",
    "now",
    "open_database",
    "schema_rows",
]
