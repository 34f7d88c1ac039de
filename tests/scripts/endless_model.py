"""A model directory whose model talks printable ASCII until it is stopped: for pipes, signals and full disks."""

from __future__ import annotations

import json
import string
from pathlib import Path

CONTEXT_LENGTH = 100_000
_TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}[assistant]"


def write_endless_model(directory: Path) -> Path:
    """Write a two-layer llama with a byte tokenizer that never samples its end token, and return `directory`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    vocabulary["<end>"] = end = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<end>",
                "chat_template": _TEMPLATE,
                "model_max_length": CONTEXT_LENGTH,
                "clean_up_tokenization_spaces": False,
            }
        )
    )
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_LENGTH,
        eos_token_id=end,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    printable = {vocabulary[character] for character in string.ascii_letters + string.digits}
    with torch.no_grad():
        for number in range(len(vocabulary)):
            if number not in printable:  # its logit is 0, and one of the others is always above
                model.lm_head.weight[number] = 0
    model.save_pretrained(directory)
    return directory
