"""How a network runs: buffers, the plan, maps at rest and lit."""
