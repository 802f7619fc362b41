"""Shows the examples of docstrings as code, which Markdown takes for quotations."""

import re

import griffe

PARAGRAPH = re.compile(r"^(?:>>> .*|\.\.\. .*)(?:\n.+)*", re.MULTILINE)


class Examples(griffe.Extension):
    def on_instance(self, *, obj, **kwargs):
        if obj.docstring:
            text = PARAGRAPH.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
            obj.docstring.value = text.replace("\nExample:\n", "\n**Example:**\n")
