"""The search for what the paper does not publish, stage by stage: `python -m search --candidate NAME --stage STAGE`."""
