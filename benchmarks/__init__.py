"""What `make bench` runs: each measurement against its aim, into results/*.json and docs/performance.md."""
