"""The page of results, live: a small web server on the loopback interface that only reads the database."""

from orchestrator.serving.server import LOOPBACK, ServingError, live_script, serve
from orchestrator.serving.state import Look

__all__ = ["LOOPBACK", "Look", "ServingError", "live_script", "serve"]
