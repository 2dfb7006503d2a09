"""The Python code in README.md and docs/ runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if page.exists() and "_build" not in page.parts
]

# An info string of "python" and nothing else; "python no-run" opts out.
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`\n]*)\n", re.MULTILINE)


def code_blocks(text):
    """Pairs (line, code) of the Python blocks to run, in order."""
    blocks, position = [], 0
    while fence := FENCE.search(text, position):
        end = re.compile(rf"^ *{fence['ticks']}`* *$", re.MULTILINE).search(text, fence.end())
        assert end, f"block without an end: line {text.count(chr(10), 0, fence.start()) + 1}"
        if fence["info"].strip() == "python":
            indent = len(fence["indent"])
            lines = text[fence.end() : end.start()].splitlines()
            code = "\n".join(line[indent:] for line in lines)
            blocks.append((text.count("\n", 0, fence.end()), code))
        position = end.end()
    return blocks


RUNNABLE = [page for page in PAGES if code_blocks(page.read_text())]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda p: str(p.relative_to(ROOT)))
def test_code_blocks_run(page, tmp_path, monkeypatch):
    # One file is one session: a block sees the names of those before it.
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for line, code in code_blocks(page.read_text()):
        # Empty lines in front, so that a traceback shows the line of the page.
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


def test_the_parser_itself():
    text = (
        "```python\na = 1\n```\n"
        "```python no-run\nboom\n```\n"
        "```bash\npython x.py\n```\n"
        "````md\n```python\nquoted\n```\n````\n"
        "- item\n\n  ```python\n  b = a\n    \n  ```\n"
    )
    assert code_blocks(text) == [(1, "a = 1"), (17, "b = a\n  ")]
