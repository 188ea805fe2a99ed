"""Tokenizers from local files, and the BERT that clinical text encoders share."""

from __future__ import annotations

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
    """The words of a BERT vocabulary ``vocab.txt`` in the order of their ids.

    Raises
    ------
    ValueError
        A file that cannot be read, or without BERT's special words.
    """
    try:
        found = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{vocabulary}: cannot be read as a vocabulary ({error})") from None
    if missing := {"[CLS]", "[SEP]", "[PAD]", "[UNK]"} - set(found):
        raise ValueError(
            f"{vocabulary}: not a BERT vocabulary, it lacks {', '.join(sorted(missing))}; expected "
            "one word a line"
        )
    return found


def wordpiece(
    vocabulary: Path,
    length: int | None,
    pad_to: int | None = None,
    clean: Callable[[str], str] = str,
) -> Callable[[list[str]], Tokens]:
    """BERT's tokenizer from a file ``vocab.txt``; lower-cases, as all the models here do.

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

    padding = words(vocabulary).index("[PAD]")
    tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    tokenizer.enable_padding(pad_id=padding, length=pad_to)
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
