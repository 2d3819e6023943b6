"""Third-party clients against the simulator, each in an environment and a process of its own: ``make conformance``."""
