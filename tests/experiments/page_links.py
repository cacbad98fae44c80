"""The links of a report's page."""

import html
import html.parser
import re
import shlex


class Links(html.parser.HTMLParser):
    """Collects what a page refers to, its text, and the texts in bold.

    Pictures that a page carries itself are no links.
    """

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.open, self.text, self.bold = [], set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        found = [attributes[key] for key in ("src", "href") if key in attributes]
        self.links += [link for link in found if not link.startswith("data:image/png;base64,")]
        self.anchors.add(attributes.get("id"))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "b":
            self.bold.append(data)

    def files(self, folder):
        """Return the files that a page in a folder names; they and the places in it exist."""
        assert self.open == []
        assert all(link[1:] in self.anchors for link in self.links if link.startswith("#"))
        files = [link for link in self.links if not link.startswith("#")]
        assert not [link for link in files if "://" in link or link.startswith("/")]
        assert not [link for link in files if not (folder / link).is_file()]
        return files


def opening_of(page, *command):
    """Return the sentences that a page opens with, and hold the page to all that others have."""
    text = page.read_text()
    headings = re.findall(r'<h2 id="([\w-]+)">', text)
    assert headings[:2] == ["found", "verdicts"] and headings[-2:] == ["repeat", "settings"]
    (sentences,) = re.findall(r'<ol class="found">(.*?)</ol>', text, re.DOTALL)
    sentences = [html.unescape(found) for found in re.findall(r"<li>(.*?)</li>", sentences)]
    assert 2 <= len(sentences) <= 6 and all(found.endswith(".") for found in sentences)
    assert not [found for found in sentences if re.search(r"\bnan\b|\{|  ", found)]
    (line,) = re.findall(r"<pre><code>(.*?)</code></pre>", text)
    words = [word for word in shlex.split(html.unescape(line)) if "--workdir" not in word]
    assert words[1:] == ["-m", *command]
    links = Links(text)
    assert [link for link in links.files(page.parent) if link.startswith("../")]
    return sentences
