"""Benchmarks: run by hand, each prints ratios of what was measured in one run. No test looks at a clock."""
