"""Tokenizers from local files, and the BERT that clinical text encoders share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cxrlib.models.encoder import Tokens


def bert(vocabulary: int, pooler: bool) -> nn.Module:
    """An untrained BERT-base (12 layers of 768): transformers' own, from its configuration.

    Parameters
    ----------
    vocabulary : int
        28,996 for Bio_ClinicalBERT, 30,522 for CXR-BERT and BiomedBERT.
    pooler : bool
        Whether the checkpoint carries the pooler; none of the encoders here uses it.
    """
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(vocab_size=vocabulary), add_pooling_layer=pooler)


def words(vocabulary: Path) -> list[str]:
    """The words of a BERT vocabulary in the order of their ids.

    Parameters
    ----------
    vocabulary : Path
        ``vocab.txt``, a word per line, or ``tokenizer.json``, as transformers 5 saves it.

    Raises
    ------
    ValueError
        A file that cannot be read, of another kind of tokenizer, without BERT's special words, or
        with a word twice.
    """
    try:
        text = vocabulary.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{vocabulary}: cannot be read as a vocabulary ({error})") from None
    if text.lstrip().startswith("{"):
        found = _of_json(text, vocabulary)
    else:
        found = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if twice := [word for word, times in Counter(found).items() if times > 1]:
        raise ValueError(
            f"{vocabulary}: {len(twice)} words stand in it more than once, such as {twice[0]!r}; "
            "expected each once, since its place is its number; get the file again"
        )
    if missing := {"[CLS]", "[SEP]", "[PAD]", "[UNK]"} - set(found):
        raise ValueError(
            f"{vocabulary}: not a BERT vocabulary, it lacks {', '.join(sorted(missing))}; expected "
            "one word per line"
        )
    return found


def _of_json(text: str, path: Path) -> list[str]:
    try:
        model = json.loads(text)["model"]
        kind, ids = model["type"], dict(model["vocab"])
        known = kind == "WordPiece" and model.get("continuing_subword_prefix", "##") == "##"
        if known and sorted(ids.values()) == list(range(len(ids))):
            return sorted(ids, key=ids.__getitem__)
    except (ValueError, LookupError, TypeError, RecursionError):
        kind = "unknown"
    raise ValueError(
        f"{path}: a tokenizer of type {kind}; expected the WordPiece of a BERT, its words numbered "
        "from 0, or a file vocab.txt"
    )


def wordpiece(
    vocabulary: Path,
    length: int | None,
    pad_to: int | None = None,
    clean: Callable[[str], str] = str,
) -> Callable[[list[str]], Tokens]:
    """BERT's tokenizer from a file of :func:`words`; lower-cases, as all the models here do.

    Parameters
    ----------
    vocabulary : Path
    length : int or None
        Longer texts are cut to this many tokens; with None they are refused above BERT's 512.
    pad_to : int or None
        Pad to this length; with None to the longest text of the call.
    clean : callable
        What upstream does to a text first.
    """
    from tokenizers import BertWordPieceTokenizer

    ids = {word: number for number, word in enumerate(words(vocabulary))}
    tokenizer = BertWordPieceTokenizer(ids, lowercase=True)
    tokenizer.enable_padding(pad_id=ids["[PAD]"], length=pad_to)
    if length:
        tokenizer.enable_truncation(length)

    def tokenize(texts):
        found = tokenizer.encode_batch([clean(text) for text in texts])
        if not length and (longest := max(len(x.ids) for x in found)) > 512:
            raise ValueError(f"a text of {longest} tokens: this model reads at most 512")
        return Tokens(
            torch.tensor([x.ids for x in found]), torch.tensor([x.attention_mask for x in found])
        )

    return tokenize


def clip_bpe(
    clean: Callable[[str], str] | None = None, cut: bool = True
) -> Callable[[list[str]], Tokens]:
    """CLIP's byte-pair tokenizer; its vocabulary comes with open_clip, no file is needed.

    Parameters
    ----------
    clean : callable, optional
        In place of CLIP's own cleaning (HTML entities, white space, lower case).
    cut : bool
        Cut texts above 77 tokens, or refuse them as OpenAI's code does.
    """
    from open_clip.tokenizer import SimpleTokenizer

    bpe = SimpleTokenizer()
    if clean:
        bpe.clean_fn = clean

    def tokenize(texts):
        if not cut and (long := [t for t in texts if len(bpe.encode(t)) > 75]):
            raise ValueError(f"a text of more than 77 tokens, {long[0]!r:.80}: shorten it")
        ids = bpe(list(texts))
        # 0 is also a word piece: what counts as padding is what follows the first end token.
        ends = (ids == bpe.eot_token_id).int().argmax(dim=1, keepdim=True)
        return Tokens(ids, (torch.arange(ids.shape[1]) <= ends).long())

    return tokenize
