"""Requests that nobody meant, against a real worker: `bin/fuzz`, and a short run among the tests."""
