"""Where the time goes, what the machine is, and the pictures of both."""
