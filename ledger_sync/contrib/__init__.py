"""What is optional: a command line and readers. Nothing in the core imports from here."""
