"""README.ja.md follows README.md: the same code, links, names and numbers, and Japanese set in one way."""

import io
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import blocks  # noqa: E402

ENGLISH, JAPANESE = ROOT / "README.md", ROOT / "README.ja.md"
KANA_OR_KANJI = r"[ぁ-ゖァ-ヺー一-鿿々]"
NUMBER = re.compile(r"\d+(?:[.,]\d+)*%?")
COUNTED = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
WORDS = {"once": "1", "second": "2"} | {word: str(number) for number, word in enumerate(COUNTED, 1)}
FENCED = re.compile(r"^(`{3,}).*?^\1$", re.M | re.S)
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)]+)\)")


def sections(page):
    """(heading's level, text without its blocks) of each, the text before the first heading included."""
    text = FENCED.sub("", page.read_text())
    text = CODE.sub(lambda code: code[0].replace("\n", " "), text)
    parts = re.split(r"^(#+) .*$", text, flags=re.M)
    return [("", parts[0]), *zip(parts[1::2], parts[2::2])]


def in_both():
    """The text of each section in English and Japanese."""
    english, japanese = sections(ENGLISH), sections(JAPANESE)
    assert [level for level, _ in japanese] == [level for level, _ in english]
    return [(a, b) for (_, a), (_, b) in zip(english, japanese)]


def comments(block):
    """Where they begin, (line, column), and what they say."""
    if block.language == "python":
        tokens = tokenize.generate_tokens(io.StringIO(block.text).readline)
        return {token.start: token.string for token in tokens if token.type == tokenize.COMMENT}
    found = (
        (number, re.search(r"(?:^|(?<=\s))#.*", line))
        for number, line in enumerate(block.text.splitlines(), 1)
    )
    return {(number, match.start()): match[0] for number, match in found if match}


def without_comments(block):
    lines = block.text.splitlines()
    for line, column in comments(block):
        lines[line - 1] = lines[line - 1][:column]
    return lines


def rows(text):
    """The cells of all tables, row by row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def prose(page):
    """(number, line) of the lines outside blocks, without code and the addresses of links."""
    text = FENCED.sub(lambda block: "\n" * block[0].count("\n"), page.read_text())
    return [(number, LINK.sub("]", CODE.sub("x", line))) for number, line in enumerate(text.splitlines(), 1)]


def test_each_points_to_the_other_below_its_title():
    assert ENGLISH.read_text().splitlines()[:3] == ["# xpnet", "", "[日本語](README.ja.md)"]
    assert JAPANESE.read_text().splitlines()[:3] == ["# xpnet", "", "[English](README.md)"]


def test_the_blocks_are_the_same_but_for_their_comments():
    english, japanese = blocks.blocks(ENGLISH), blocks.blocks(JAPANESE)
    assert len(japanese) == len(english) > 10
    for a, b in zip(english, japanese):
        assert (b.language, b.marks) == (a.language, a.marks), b.where
        assert without_comments(b) == without_comments(a), b.where
        assert list(comments(b)) == list(comments(a)), b.where


def test_comments_are_translated():
    for english, japanese in zip(blocks.blocks(ENGLISH), blocks.blocks(JAPANESE)):
        for a, b in zip(comments(english).values(), comments(japanese).values()):
            assert b == a if a.startswith("# pip install") else re.search(KANA_OR_KANJI, b), japanese.where


def test_sections_name_the_same_code():
    for english, japanese in in_both():
        assert Counter(CODE.findall(japanese)) == Counter(CODE.findall(english))


def test_sections_link_to_the_same_places():
    english, japanese = ([LINK.findall(text) for text in pair] for pair in zip(*in_both()))
    assert [sorted(links) for links in japanese[2:]] == [sorted(links) for links in english[2:]]
    assert (english[1], japanese[1]) == (["README.ja.md"], ["README.md"])


def test_sections_hold_the_same_numbers():
    """Japanese writes with digits what English may write as words."""
    for english, japanese in in_both():
        in_digits, found = Counter(NUMBER.findall(english)), Counter(NUMBER.findall(japanese))
        in_words = Counter(WORDS[word] for word in re.findall(r"\w+", english.lower()) if word in WORDS)
        assert not in_digits - found, in_digits - found
        assert not found - in_digits - in_words, found - in_digits - in_words


def test_tables_are_the_same_row_by_row():
    for english, japanese in in_both():
        english, japanese = rows(english), rows(japanese)
        assert [len(row) for row in japanese] == [len(row) for row in english]
        for a, b in zip(english, japanese):
            for cell, translated in zip(a, b):
                assert not Counter(NUMBER.findall(cell)) - Counter(NUMBER.findall(translated)), translated
                assert CODE.findall(translated) == CODE.findall(cell)
                if re.fullmatch(r"[\d.]+", cell):
                    assert translated == cell


@pytest.mark.parametrize(
    ("what", "wrong"),
    [
        ("half-width kana", r"[｡-ﾟ]"),
        ("full-width letters or digits", r"[Ａ-Ｚａ-ｚ０-９]"),
        ("commas and full stops of another style", r"[，．]"),
        (
            "Latin next to Japanese without a space",
            rf"{KANA_OR_KANJI}[A-Za-z0-9]|[A-Za-z0-9%]{KANA_OR_KANJI}",
        ),
        (
            "a space between Japanese characters",
            rf"(?:{KANA_OR_KANJI}|[、。（）：]) +(?:{KANA_OR_KANJI}|[、。（）：])",
        ),
        ("a space beside a full-width sign", r"[A-Za-z0-9\])] [、。（）：〜]|[、。（）：〜] [A-Za-z0-9\[]"),
        ("half-width punctuation behind Japanese", rf"{KANA_OR_KANJI}[,.:;()]"),
    ],
)
def test_the_japanese_is_set_in_one_way(what, wrong):
    for number, line in prose(JAPANESE):
        assert not re.search(wrong, line), f"README.ja.md:{number}: {what}: {line}"


def test_paragraphs_are_single_lines():
    """A line break between two Japanese characters would be read out as a space."""
    lines = [line for _, line in prose(JAPANESE)]
    for line, following in zip(lines, lines[1:]):
        assert not (line and following) or following.startswith(("|", "* ")), following


def test_sentences_are_polite_and_end():
    for number, line in prose(JAPANESE):
        if re.search(KANA_OR_KANJI, line) and not re.match(r"[|#!*\[]", line):
            assert line.endswith(("。", "。）")) or line.startswith("x"), f"README.ja.md:{number}: {line}"


def test_what_is_meant_to_be_bold_is_bold():
    """Markdown does not close ** between a Japanese full stop and a letter."""
    markdown = pytest.importorskip("markdown_it", reason="reading Markdown needs pip install 'xpnet[docs]'")
    html = markdown.MarkdownIt("commonmark").enable("table").render(JAPANESE.read_text())
    assert "<strong>" in html and "**" not in html
