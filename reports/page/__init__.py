"""The page to explore: `page_data` gathers everything it shows as JSON, `render_page` makes one file of it."""

from reports.page.data import page_data
from reports.page.render import render_page

__all__ = ["page_data", "render_page"]
