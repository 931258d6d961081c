"""What the page says of a model that is not whole in it, in the page's languages; texts: reasons.json."""

from __future__ import annotations

import json

from .assemble import part


def reason(key: str, **numbers) -> dict[str, str]:
    """The text of that key by language, with the numbers filled in."""
    texts = json.loads(part("reasons.json"))[key]
    return {language: text.format(**numbers) for language, text in texts.items()}
