"""The harness: plan, train, evaluate, store, judge."""
