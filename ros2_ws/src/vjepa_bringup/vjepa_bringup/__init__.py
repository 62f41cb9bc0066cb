"""Launch files, parameter files, the graph, stack manager and process supervisor."""
