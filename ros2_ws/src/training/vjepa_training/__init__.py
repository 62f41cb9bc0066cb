"""Bags to datasets to weights to scores, offline."""
