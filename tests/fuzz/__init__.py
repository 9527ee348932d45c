"""What is run on inputs that a machine makes up. Each module says in its docstring how."""
