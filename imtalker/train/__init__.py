"""Training and fine-tuning of both models. Needs `pip install lightning-fabric`; nothing else needs it."""
