"""The telling words of a text, by their stems, so that two texts can be compared by what they are about."""

import re
from functools import cache

_CJK_RUN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")

# Say nothing about what a question is about, in whatever field: English words, Chinese fragments of two characters.
COMMON_WORDS = frozenset(
    """
    about after again all also and another any anyone anything are been before being both but can could did does doing
    done each else ever every everything feel feeling for from get gets give got had has have having hello her here him
    his how into its itself just keep know last let like list look made make many maybe might more most much must need
    next not now off okay one only other others our out over own please put really right say should show some someone
    something sorry still such sure take tell than thank thanks that the their them then there these they thing things
    this those too two under very want was well were what when where whether which while who whom whose why will with
    would yes you your yours
    什么 么样 样的 样子 怎么 怎样 有没 没有 是否 是不 不是 会不 不会 能不 不能 可以 还是 还有 有什 是什 或者 或是
    或有 哪里 哪个 哪些 哪儿 哪种 多少 几个 一般 一下 这个 那个 您的 你的 现在 最近 觉得 感到 请问 时候 的时 情况
    有些 有点 别的 其他 出现 除了 的是 告诉 诉我 所有 您好 好的 谢谢
    """.split()
)


def words_of(text: str, common: frozenset[str]) -> frozenset[str]:
    """The stems of a text's telling words: at least three letters or a number, none of the common ones.

    Chinese and Japanese are written without spaces: there every two neighbours count as a word.

    Args:
        text: In any case.
        common: Words that do not count, as they are written.
    """
    runs = _CJK_RUN.findall(text)
    pairs = frozenset(run[start : start + 2] for run in runs for start in range(max(1, len(run) - 1)))
    words = frozenset(re.findall(r"[a-z]{3,}|\d[\d.-]*", text.lower()))
    return frozenset(map(stem, words - common)) | (pairs - common)


@cache
def stem(word: str) -> str:
    """A word without its endings: `cramps` and `cramping` are one."""
    import snowballstemmer

    stemmed: str = snowballstemmer.stemmer("english").stemWord(word)
    return stemmed
