from html.parser import HTMLParser

from forkproxy.admin import page
from forkproxy.admin.endpoints import ENDPOINTS


class Outline(HTMLParser):
    """Collects links, form targets, field names, and checks that elements nest."""

    def __init__(self, text):
        super().__init__()
        self.links, self.posts, self.gets, self.fields, self.open = set(), set(), set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)
        if tag == "a":
            self.links.add(found["href"])
        if tag == "form":
            (self.posts if found["method"] == "post" else self.gets).add(found["action"])
        if tag in ("input", "select"):
            assert "label" in self.open
            self.fields.add(found["name"])

    def handle_endtag(self, tag):
        if tag != "option":
            while self.open[-1] == "option":
                self.open.pop()
            assert self.open.pop() == tag


def test_everything_can_be_reached_from_the_home_page():
    outline = Outline(page.home("forkproxy/1", "LIVE"))
    assert outline.links == {e.path for e in ENDPOINTS if not e.mutates and e.path != "/"}
    assert outline.posts == {e.path for e in ENDPOINTS if e.mutates}
    assert outline.fields == {p.name for e in ENDPOINTS for p in e.parameters}
    assert outline.open == []


def test_what_comes_from_outside_is_escaped():
    assert "<b>" not in page.home("<b>", "<b>")
    assert "&lt;script&gt;" in page.stats("<script>: 1\n")


def test_the_page_says_version_and_state():
    text = page.home("forkproxy/1.2", "DRAINING")
    assert "forkproxy/1.2" in text
    assert "DRAINING" in text
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
