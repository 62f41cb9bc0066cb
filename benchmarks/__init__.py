"""The benchmarks of `make bench`: each compares its figures with aims, for results/*.json and docs/performance.md."""
