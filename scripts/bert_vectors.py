#!/usr/bin/env python3
"""A small BERT with its logits and gradients, for `tests/suite/layers/start.rs`.

    pip install torch transformers
    scripts/bert_vectors.py > tests/vectors/bert.json

The model is `BertModel` of the library transformers in double precision, the mean of the positions that are no padding, and a linear
layer. Its tensors carry the names that the library writes.
"""
import json

import torch
from transformers import BertConfig, BertModel

TOKENS, WIDTH, BLOCKS, HEADS, HIDDEN, POSITIONS, CLASSES = 13, 8, 2, 2, 12, 7, 3


def main():
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=TOKENS,
        hidden_size=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        max_position_embeddings=POSITIONS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    bert = BertModel(config, add_pooling_layer=False)
    head = torch.nn.Linear(WIDTH, CLASSES)
    for parameter in [*bert.parameters(), *head.parameters()]:
        torch.nn.init.normal_(parameter, std=0.4)
    # What single precision holds, so that both compute with the same numbers.
    bert, head = bert.float().double(), head.float().double()
    tokens = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [12, 0, 0, 0, 0], [7, 8, 9, 10, 11]])
    labels = torch.tensor([0, 2, 1, 2])
    mask = (tokens != 0).long()
    states = bert(input_ids=tokens, attention_mask=mask).last_hidden_state
    pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    logits = head(pooled)
    torch.nn.functional.cross_entropy(logits, labels, reduction="mean").backward()
    named = [(name, p) for name, p in bert.named_parameters()]
    tensors = {name: {"shape": list(p.shape), "values": p.detach().flatten().tolist()} for name, p in named}
    gradients = {name: p.grad.flatten().tolist() for name, p in named}
    print(json.dumps({
        "model": {"bert": {
            "tokens": TOKENS, "positions": POSITIONS, "length": tokens.shape[1], "width": WIDTH, "blocks": BLOCKS,
            "heads": HEADS, "hidden": HIDDEN, "classes": CLASSES,
        }},
        "tokens": tokens.tolist(),
        "labels": labels.tolist(),
        "tensors": tensors,
        "head": [head.weight.detach().T.flatten().tolist(), head.bias.detach().tolist()],
        "logits": logits.tolist(),
        "gradients": gradients,
    }))


if __name__ == "__main__":
    main()
