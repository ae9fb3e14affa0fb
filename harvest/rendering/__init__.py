"""Text drawn as greyscale pages for a teacher that sees: the same text and layout give the same pixels everywhere.

    render(text, Layout(512, 512)) -> [Page(pixels, png, sha256, lines), ...]

Latin, Greek, Cyrillic, Chinese, Japanese and Korean are drawn. Scripts that join or reorder their letters (Arabic,
Hebrew, Devanagari, ...) and emoji are refused by name: a wrong drawing would teach the teacher another text.
"""

from harvest.rendering.fonts import prepare_text
from harvest.rendering.layout import Layout
from harvest.rendering.page import Line, Page, render

__all__ = ["Layout", "Line", "Page", "prepare_text", "render"]
