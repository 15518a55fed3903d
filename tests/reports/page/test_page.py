"""The page as a file: names that could break it, and what it asks of the network, which is nothing."""

from __future__ import annotations

import html
import html.parser
import json
import re
from base64 import b64encode
from hashlib import sha256

import pytest

from reports.gathering import gather
from reports.page import page_data, render_page
from reports.page.render import embedded
from tests.reports.lookup import one
from tests.reports.synthetic import configuration, make_database

NASTY = (
    """</script><script>alert(1)</script> <!-- & "q" 'é' 模型 `*_b_*` ${x} """
    "\u2028 \u202egnorw\u202c <i onx=x>"
)


class Texts(html.parser.HTMLParser):
    """The tags, texts and references of a page."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.feed(document)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def gathered(database):
    return gather(database, vs_paper=True)


def main(document: str) -> str:
    """The part of a page that readers without scripts see."""
    return document[document.index("<body") : document.index('<script type="application/json"')] + "\n"


def test_tables_stand_in_the_page_without_any_script(database, gathered, golden):
    chosen = [one(gathered.tables, name) for name in ("overview", "table1", "table4-vs-paper")]
    golden("report.html", main(render_page(page_data(database, gathered.results, chosen))))


def test_names_stay_names_and_no_other_file_is_needed(tmp_path):
    long = NASTY + "x" * 10_000

    def filling(filler):
        trials = [(f"{NASTY}{seed}", configuration(network="resnet18", seed=seed), {"epochs": 2}) for seed in (0, 1)]
        filler.grid(long, {"tables": [1]}, trials)
        for row in filler.rows[list(filler.rows)[3]]:
            row |= {"error_text": NASTY, "log": f"/logs/{NASTY}", "device": NASTY}

    with make_database(tmp_path / "results.db", filling) as database:
        gathered = gather(database)
        data = page_data(database, gathered.results, gathered.tables)
    document = render_page(data)
    texts = Texts(document)
    assert texts.tags.count("script") == 2 and texts.handlers == []
    assert texts.references == ["data:,"] and not {"img", "iframe", "object", "base"} & set(texts.tags)
    assert "@import" not in document and re.findall(r"url\((?!#)", document) == []
    assert any(NASTY in text for text in texts.texts)
    stored = re.search(r'<script type="application/json" id="data">(.*?)</script>', document, re.DOTALL)[1]
    kept = json.loads(stored)
    assert kept["trials"][0]["attempts"][0]["log"] == f"/logs/{NASTY}" and kept["grids"][0]["name"] == long
    assert not set("<>&\u2028\u2029") & set(stored)


def test_the_pages_policy_allows_its_own_script_alone(database, gathered):
    document = render_page(page_data(database, gathered.results, []))
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', document)[1])
    code = document[document.rindex("<script>") + 8 : document.rindex("</script>")]
    assert f"script-src 'sha256-{b64encode(sha256(code.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy
    assert "</script" not in code and "<!--" not in code


def test_numbers_that_json_has_no_name_for_are_refused_rather_than_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded({"figures": [], "value": float("nan")})
