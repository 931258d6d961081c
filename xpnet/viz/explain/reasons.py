"""What the page says of a model that is not whole in it, in the page's languages."""

from __future__ import annotations

LANGUAGES = ("en", "ja")

_TEXTS = {
    "compiled": (
        "the loss the model was compiled with",
        "モデルのコンパイル時に指定された損失です",
    ),
    "assumed": (
        "the model file names no loss; this is the usual one for such outputs",
        "モデルファイルに損失の指定がないため、この種の出力で普通に使われる損失を用いています",
    ),
    "unknown": (
        "the page does not know the model's own loss; this is the usual one for such outputs",
        "このモデル独自の損失はこのページでは計算できないため、この種の出力で普通に使われる損失を用いています",
    ),
    "one sample": (
        "{layer} cannot take its statistics from one sample; in training, too, the page uses the running ones",
        "{layer} は 1 サンプルだけでは統計量を求められないため、このページでは学習時も移動平均の値を使います",
    ),
    "rounded": (
        "its {count:,} weights are kept in {bits} bits here, so that the page stays small; on the samples its "
        "sums are off by at most {error:.1g} of the largest. The samples are shown with the exact numbers",
        "ページを小さく保つため、{count:,} 個の重みを {bits} ビットに丸めています。サンプルで測った和の誤差は"
        "最大値の {error:.1g} 以下です。サンプルには正確な数値を表示しています",
    ),
    "weights": (
        "its {count:,} weights do not fit into a page of 3 MB; for the samples its exact results are stored",
        "{count:,} 個の重みは 3 MB のページに収まらないため、サンプルについての正確な結果だけを保存しています",
    ),
    "class": (
        "the page cannot compute {kind}, a class of the model's own; for the samples its exact results are "
        "stored",
        "{kind} はこのモデル独自のクラスで、このページでは計算できないため、サンプルについての正確な結果だけを"
        "保存しています",
    ),
    "work": (
        "it takes {count:,} multiplications, too many for a page; for the samples its exact results are "
        "stored",
        "{count:,} 回の乗算はページで計算するには多すぎるため、サンプルについての正確な結果だけを保存しています",
    ),
    "behind": (
        "what it reads is not in the page; for the samples its exact results are stored",
        "入力となる層の値がページにないため、サンプルについての正確な結果だけを保存しています",
    ),
    "map": (
        "its output of {count:,} numbers is too large for a page",
        "出力の {count:,} 個の数値はページに載せるには大きすぎます",
    ),
    "room": (
        "there is no room in a page of 3 MB for its results",
        "3 MB のページには結果を保存する余裕がありません",
    ),
}  # fmt: skip


def reason(key: str, **numbers) -> dict[str, str]:
    """The text of that key in every language."""
    return {language: text.format(**numbers) for language, text in zip(LANGUAGES, _TEXTS[key])}
