"""What a network is: layers, their graph, losses, networks by name."""
