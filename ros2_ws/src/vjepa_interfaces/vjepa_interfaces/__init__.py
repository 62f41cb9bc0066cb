"""The vocabulary all nodes share: topics, QoS, codecs, alignment, the managed-node base."""
