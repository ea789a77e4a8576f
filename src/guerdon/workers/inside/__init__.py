"""What runs inside the sandbox: the standard library alone, in an interpreter of its own that never imports the rest of guerdon."""
