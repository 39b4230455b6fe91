"""How a network runs: buffers, the plan, zero suppression."""
