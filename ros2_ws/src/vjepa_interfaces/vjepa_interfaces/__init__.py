"""Definitions that all nodes share: topics, QoS, codecs, alignment, the managed-node base."""
