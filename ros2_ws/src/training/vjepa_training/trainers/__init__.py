"""Train encoders, policies, models and actors from datasets."""
